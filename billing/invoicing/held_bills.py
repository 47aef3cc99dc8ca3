"""An operator's decision on a held bill, with an audit entry.

`release_held_bill` makes it final, taxed by that day's profiles. `void_held_bill` drops it: its amount counts as
billed, so that no later close bills it again; or with `again` it counts as not billed, and its period is closed again
with the current profiles.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import BillingContext
from billing.invoicing.issuing import copied, finalise, new_document, parties_of, totals_of
from billing.invoicing.overage_bills import NO_PROFILE, close_held_finding, replace_draft
from billing.invoicing.period_close import close_period
from billing.models import Bill, BillingPeriod
from billing.models.states import BillKind, BillState
from core.clock import now_ms
from core.errors import Conflict
from core.tenancy.audit import Actor, record


async def release_held_bill(context: BillingContext, actor: Actor, bill_id: UUID) -> Bill:
    """Makes a held bill final, so that it is numbered and collected. Raises NotFound, Conflict."""
    async with _decided(context, actor, "bill.release", bill_id) as (session, bill):
        if bill.reason == NO_PROFILE:
            raise Conflict("the bill waits for the tenant's billing profile, or for the operator's")
        final = await _taxed_today(session, bill)
        await finalise(session, context, final, now_ms())
    return final


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


async def _taxed_today(session: AsyncSession, bill: Bill) -> Bill:
    """The bill itself, or a new one in its place if a profile changed since. Without a profile it stays as it is."""
    parties = await parties_of(session, bill.tenant_id)
    if parties is None:
        return bill
    today = msgspec.json.decode(msgspec.json.encode(copied(parties)))  # as JSON in a row has it: lists, no tuples
    if today == {name: getattr(bill, name) for name in today}:
        return bill
    kept = {"lines": bill.lines, "taken": bill.taken, **totals_of(bill.taxable_paise, parties), **copied(parties)}
    await replace_draft(session, bill, now_ms())
    return await new_document(session, bill, BillKind(bill.kind), now_ms(), **kept)


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
