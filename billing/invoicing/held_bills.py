"""An operator's decision on a held bill, with an audit entry.

`release_held_bill` makes it final unchanged. `void_held_bill` drops it: its amount counts as billed, so that no later
close bills it again; or with `again` it counts as not billed, and its period is closed again with the current profiles.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import BillingContext
from billing.invoicing.issuing import finalise
from billing.invoicing.overage_bills import NO_PROFILE, close_held_finding
from billing.invoicing.period_close import close_period
from billing.models import Bill, BillingPeriod
from billing.models.states import BillState
from core.clock import now_ms
from core.errors import Conflict
from core.tenancy.audit import Actor, record


async def release_held_bill(context: BillingContext, actor: Actor, bill_id: UUID) -> Bill:
    """Makes a held bill final, so that it is numbered and collected. Raises NotFound, Conflict."""
    async with _decided(context, actor, "bill.release", bill_id) as (session, bill):
        if bill.reason == NO_PROFILE:
            raise Conflict("the bill waits for the tenant's billing profile, or for the operator's")
        await finalise(session, context, bill, now_ms())
    return bill


async def void_held_bill(
    context: BillingContext, actor: Actor, bill_id: UUID, reason: str, *, again: bool = False
) -> Bill:
    """Drops a held bill, or with `again` bills its period anew. Raises NotFound, Conflict."""
    async with _decided(context, actor, "bill.rebill" if again else "bill.void", bill_id) as (session, bill):
        bill.state, bill.reason = BillState.VOID, reason
        if again:
            bill.taken = {}
            period = await session.get_one(BillingPeriod, (bill.tenant_id, bill.period_id))
            await session.flush()
            await close_period(session, context, period, now_ms())
    return bill


@asynccontextmanager
async def _decided(
    context: BillingContext, actor: Actor, action: str, bill_id: UUID
) -> AsyncIterator[tuple[AsyncSession, Bill]]:
    """A transaction with the held bill; afterwards resolves its finding, projects, and writes the audit entry."""
    async with context.locked_by_id(Bill, bill_id) as (session, bill):
        if bill.state != BillState.HELD:
            raise Conflict(f"the bill is not held; it is {bill.state}")
        before = _shown(bill)
        yield session, bill
        await close_held_finding(session, bill, now_ms())
        await project(session, context.zone, bill.tenant_id, now_ms())
        target = f"bill:{bill.id}"
        record(session, actor, action, tenant_id=bill.tenant_id, target=target, before=before, after=_shown(bill))


def _shown(bill: Bill) -> dict[str, Any]:
    return {"state": bill.state, "number": bill.number, "reason": bill.reason, "total_paise": bill.total_paise}
