"""Captured payments that have our notes, but whose charge or subscription isn't known here: findings, never silence.

Such money came for a bill of a database that was restored, or of another installation on the same account. The finding
closes once the payment has its row. Postgres down: Unavailable.
"""

from uuid import UUID

from billing.context import BillingContext
from billing.findings import record_finding
from billing.models.states import CAPTURED
from billing.razorpay import entities
from core.tenancy.models import Tenant

_NOTES = ("charge", "bill", "naka_subscription", "naka_mandate", "mandate")


def has_our_notes(payment: entities.Payment) -> bool:
    """Whether a payment says that it is ours, of this database or another."""
    return _uuid(payment.notes.get("tenant_id")) is not None and any(note in payment.notes for note in _NOTES)


async def report_unplaced(context: BillingContext, payment: entities.Payment) -> bool:
    """Records the finding; False if the payment isn't captured, or its notes aren't ours."""
    tenant_id = _uuid(payment.notes.get("tenant_id"))
    if payment.status not in CAPTURED or tenant_id is None or not has_our_notes(payment):
        return False
    async with context.database.session() as session:
        tenant = await session.get(Tenant, tenant_id)
        detail = {"payment_id": payment.id, "amount_paise": payment.amount, "notes": dict(payment.notes)}
        owner = None if tenant is None else tenant_id
        await record_finding(session, f"unplaced:{payment.id}", "payment_unplaced", tenant_id=owner, **detail)
    return True


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
