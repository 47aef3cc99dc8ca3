"""Payments disputed by the customer's bank: stored as the webhook showed them, and reported as findings.

A disputed bill stays paid, and an operator answers the bank. Deliveries come in any order, so an older one doesn't
reopen a dispute that has ended.
"""

from typing import Any

from billing.context import BillingContext
from billing.findings import record_finding
from billing.models import Dispute
from billing.payments.payments import find_payment
from core.clock import now_ms

_ENDED = frozenset({"won", "lost", "closed"})


async def record_dispute(context: BillingContext, dispute: dict[str, Any]) -> bool:
    """Stores a webhook's dispute entity or its new status; False if its payment isn't ours.

    Raises Unavailable; KeyError for an entity without id, payment_id, amount or status.
    """
    key, payment_id, status = str(dispute["id"]), str(dispute["payment_id"]), str(dispute["status"])
    async with context.database.session() as session:
        payment = await find_payment(session, payment_id)
    if payment is None:
        return False
    async with context.tenant_transaction(payment.tenant_id) as session:
        row = await session.get(Dispute, (payment.tenant_id, key))
        if row is None:
            row = Dispute(tenant_id=payment.tenant_id, razorpay_id=key, payment_id=payment_id, seen_ms=now_ms())
            row.status = status
            session.add(row)
        elif row.status in _ENDED and status not in _ENDED:
            return True
        row.amount_paise, row.status, row.entity = int(dispute["amount"]), status, dispute
        detail = {"dispute_id": key, "payment_id": payment_id, "amount_paise": row.amount_paise, "status": status}
        name = f"dispute:{key}" if status not in _ENDED else f"dispute:{key}:{status}"
        await record_finding(session, name, "dispute", tenant_id=payment.tenant_id, **detail)
    return True
