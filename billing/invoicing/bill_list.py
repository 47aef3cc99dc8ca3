"""Queries of bills: one, a page newest first, and the live charges of open ones.

`tenant_id` None means all tenants, which only the caller can authorise.
"""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Bill, Charge
from billing.models.states import LIVE, BillState
from core.errors import NotFound


async def find_bill(session: AsyncSession, bill_id: UUID, *, tenant_id: UUID | None) -> Bill:
    """One bill. Raises NotFound."""
    query = select(Bill).where(Bill.id == bill_id)
    if tenant_id is not None:
        query = query.where(Bill.tenant_id == tenant_id)
    bill = await session.scalar(query)
    if bill is None:
        raise NotFound("no such bill")
    return bill


async def list_bills(
    session: AsyncSession,
    *,
    tenant_id: UUID | None,
    state: str | None = None,
    final: bool = False,
    before: UUID | None = None,
    limit: int,
) -> Sequence[Bill]:
    """Bills of every kind; with `final` only numbered ones."""
    query = select(Bill).order_by(Bill.id.desc()).limit(limit)
    filters = ((Bill.tenant_id, tenant_id), (Bill.state, state))
    query = query.where(*(column == value for column, value in filters if value is not None))
    if final:
        query = query.where(Bill.number.is_not(None))
    if before is not None:
        query = query.where(Bill.id < before)
    return (await session.scalars(query)).all()


async def live_charges(session: AsyncSession, bills: Iterable[Bill]) -> Mapping[UUID, Charge]:
    """The live charge of each open bill, by bill id. Bills without one are missing."""
    keys = [(bill.tenant_id, bill.id) for bill in bills if bill.state == BillState.OPEN]
    if not keys:
        return {}
    query = select(Charge).where(tuple_(Charge.tenant_id, Charge.bill_id).in_(keys), Charge.state.in_(LIVE))
    return {charge.bill_id: charge for charge in await session.scalars(query)}
