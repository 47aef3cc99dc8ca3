"""An operator's word on a bill that is held.

`release` makes it final, as it stands. `void` lets it go, and there are two ways: forgiven, what it asked for stays
taken, so that no later close asks for it again; or made anew, it took nothing and its period is closed again, which
prices it afresh with the profile of now. Each leaves an audit entry.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import BillingContext
from billing.invoicing.bill_list import find_bill
from billing.invoicing.issuing import finalise
from billing.invoicing.overage_bills import NO_PROFILE, close_finding
from billing.invoicing.period_close import close_period
from billing.models import Bill, BillingPeriod
from core.clock import now_ms
from core.errors import Conflict
from core.tenancy.audit import Actor, record


async def release(context: BillingContext, actor: Actor, bill_id: UUID) -> Bill:
    """Makes a held bill final: numbered, due, collected. Raises NotFound, Conflict."""
    tenant_id = await _whose(context, bill_id)
    async with context.tenant_transaction(tenant_id) as session:
        bill = await _held(session, tenant_id, bill_id)
        if bill.reason == NO_PROFILE:
            raise Conflict("it waits for the tenant's billing profile, or for the operator's")
        before = _shown(bill)
        await finalise(session, context, bill, now_ms())
        await close_finding(session, bill, now_ms())
        await project(session, context.zone, tenant_id, now_ms())
        _record(session, actor, "bill.release", bill, before)
    return bill


async def void(context: BillingContext, actor: Actor, bill_id: UUID, reason: str, *, again: bool = False) -> Bill:
    """Lets a held bill go: forgiven, or with `again` made anew. Raises NotFound, Conflict."""
    tenant_id = await _whose(context, bill_id)
    async with context.tenant_transaction(tenant_id) as session:
        bill = await _held(session, tenant_id, bill_id)
        before = _shown(bill)
        bill.state, bill.reason = "void", reason
        await close_finding(session, bill, now_ms())
        if again:
            bill.taken = {}
            period = await session.get_one(BillingPeriod, (tenant_id, bill.period_id))
            await session.flush()
            await close_period(session, context, period, now_ms())
        await project(session, context.zone, tenant_id, now_ms())
        _record(session, actor, "bill.rebill" if again else "bill.void", bill, before)
    return bill


async def _whose(context: BillingContext, bill_id: UUID) -> UUID:
    async with context.database.session() as session:
        return (await find_bill(session, bill_id, tenant_id=None)).tenant_id


async def _held(session: AsyncSession, tenant_id: UUID, bill_id: UUID) -> Bill:
    bill = (await session.scalars(select(Bill).where(Bill.tenant_id == tenant_id, Bill.id == bill_id))).one()
    if bill.state != "held":
        raise Conflict(f"it is not held: it is {bill.state}")
    return bill


def _record(session: AsyncSession, actor: Actor, action: str, bill: Bill, before: dict[str, Any]) -> None:
    record(
        session, actor, action, tenant_id=bill.tenant_id, target=f"bill:{bill.id}", before=before, after=_shown(bill)
    )


def _shown(bill: Bill) -> dict[str, Any]:
    return {"state": bill.state, "number": bill.number, "reason": bill.reason, "total_paise": bill.total_paise}
