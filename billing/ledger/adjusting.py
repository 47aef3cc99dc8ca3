"""Adjusting entries: an operator books a difference between the ledger and its rows, with a reason.

For what a process of a version without a ledger moved during an upgrade. Postgres down: Unavailable.
"""

from collections.abc import Sequence
from uuid import UUID

from billing.context import BillingContext
from billing.ledger.balances import Difference, differences
from billing.ledger.entries import Movement, book
from billing.models.states import LedgerEntryKind
from core.clock import now_ms
from core.tenancy.audit import Actor, record


async def adjust_ledger(context: BillingContext, actor: Actor, tenant_id: UUID, reason: str) -> Sequence[Difference]:
    """Books what the rows of a tenant say and its entries don't. Returns the differences; none: nothing is booked."""
    at_ms = now_ms()
    async with context.tenant_transaction(tenant_id) as session:
        found = await differences(session, tenant_id)
        if found:
            paise = {one.account: one.derived - one.booked for one in found}
            movement = Movement(LedgerEntryKind.OPENING, f"adjustment:{at_ms}", at_ms, detail={"reason": reason})
            await book(session, tenant_id, movement, **paise)
            target, after = f"tenant:{tenant_id}", {"reason": reason, "paise": paise}
            record(session, actor, "ledger.adjust", tenant_id=tenant_id, target=target, after=after)
    return found
