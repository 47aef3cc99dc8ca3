"""Writing off: an operator gives up the debt of an open bill, with an audit entry.

The bill's charge is cancelled at Razorpay, and the tenant no longer owes it. Tax on it stays payable; money that comes
after all is refunded as excess. Postgres down: Unavailable.
"""

from uuid import UUID

from billing.access.projection import project
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.ledger.balances import DEBTS
from billing.ledger.movements import bill_written_off
from billing.models import Bill
from billing.models.bills import due_of
from billing.models.states import BillState
from core.clock import now_ms
from core.errors import Conflict
from core.tenancy.audit import Actor, record


async def write_off_bill(context: BillingContext, actor: Actor, bill_id: UUID, reason: str) -> Bill:
    """Gives up what is due of a bill. Raises NotFound, Conflict, Unavailable."""
    async with context.locked_by_id(Bill, bill_id) as (session, bill):
        paise, before = due_of(bill), {"state": bill.state}
        if bill.kind not in DEBTS or bill.number is None or not paise:
            raise Conflict(f"only a debt can be written off; this bill is {bill.state}")
        bill.written_off_paise, bill.state = bill.written_off_paise + paise, BillState.WRITTEN_OFF
        await session.flush()
        await bill_written_off(session, bill, paise, now_ms())
        await project(session, context.zone, bill.tenant_id, now_ms())
        after, target = {"state": bill.state, "paise": paise, "reason": reason}, f"bill:{bill.id}"
        record(session, actor, "bill.write_off", tenant_id=bill.tenant_id, target=target, before=before, after=after)
        enqueue_after_commit(session, COLLECT)
    return bill
