"""Reading bills: one, or a page of them, and the link that an open one is paid by.

Newest first; a cursor is the id of the last row seen. `tenant_id` None means every tenant, and is the caller's to
decide.
"""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Bill, Charge
from billing.models.bills import LIVE
from core.errors import NotFound


async def find_bill(session: AsyncSession, bill_id: UUID, *, tenant_id: UUID | None) -> Bill:
    """One document. Raises NotFound."""
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
    """Documents of every kind; with `final` only those that have a number."""
    query = select(Bill).order_by(Bill.id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(Bill.tenant_id == tenant_id)
    if state is not None:
        query = query.where(Bill.state == state)
    if final:
        query = query.where(Bill.number.is_not(None))
    if before is not None:
        query = query.where(Bill.id < before)
    return (await session.scalars(query)).all()


async def live_charges(session: AsyncSession, bills: Iterable[Bill]) -> Mapping[UUID, Charge]:
    """How each of these is being collected, by the bill; one that is not is left out."""
    keys = [(bill.tenant_id, bill.id) for bill in bills if bill.state == "open"]
    if not keys:
        return {}
    query = select(Charge).where(tuple_(Charge.tenant_id, Charge.bill_id).in_(keys), Charge.state.in_(LIVE))
    return {charge.bill_id: charge for charge in await session.scalars(query)}
