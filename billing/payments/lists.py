"""Reading charges, refunds and findings, newest first; and closing a finding. A cursor is the last row seen."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import BillingFinding, Charge, Refund
from core.clock import now_ms
from core.errors import NotFound
from core.tenancy.audit import PLATFORM, Actor, record


async def list_charges(
    session: AsyncSession,
    *,
    tenant_id: UUID | None = None,
    bill_id: UUID | None = None,
    state: str | None = None,
    before: UUID | None = None,
    limit: int,
) -> Sequence[Charge]:
    """Attempts to collect, of all tenants unless one is said."""
    query = select(Charge).order_by(Charge.id.desc()).limit(limit)
    wanted = ((Charge.tenant_id, tenant_id), (Charge.bill_id, bill_id), (Charge.state, state))
    query = query.where(*(column == value for column, value in wanted if value is not None))
    return (await session.scalars(query if before is None else query.where(Charge.id < before))).all()


async def list_refunds(
    session: AsyncSession,
    *,
    tenant_id: UUID | None = None,
    state: str | None = None,
    before: UUID | None = None,
    limit: int,
) -> Sequence[Refund]:
    """Money on its way back, of all tenants unless one is said."""
    query = select(Refund).order_by(Refund.id.desc()).limit(limit)
    wanted = ((Refund.tenant_id, tenant_id), (Refund.state, state))
    query = query.where(*(column == value for column, value in wanted if value is not None))
    return (await session.scalars(query if before is None else query.where(Refund.id < before))).all()


async def list_findings(
    session: AsyncSession, *, closed: bool = False, before: str | None = None, limit: int
) -> Sequence[BillingFinding]:
    """What a person should know: what is open, or with `closed` what was looked at already."""
    place = tuple_(BillingFinding.seen_ms, BillingFinding.key)
    state = BillingFinding.closed_ms.is_not(None) if closed else BillingFinding.closed_ms.is_(None)
    query = select(BillingFinding).where(state).limit(limit)
    query = query.order_by(BillingFinding.seen_ms.desc(), BillingFinding.key.desc())
    if before is not None:
        last = select(BillingFinding.seen_ms, BillingFinding.key).where(BillingFinding.key == before)
        query = query.where(place < last.scalar_subquery())
    return (await session.scalars(query)).all()


async def close_finding(session: AsyncSession, actor: Actor, key: str, reason: str) -> BillingFinding:
    """Somebody has looked. Closing one again changes nothing. Raises NotFound."""
    row = await session.get(BillingFinding, key, with_for_update=True)
    if row is None:
        raise NotFound("no such finding")
    if row.closed_ms is None:
        row.closed_ms = now_ms()
        whose = row.tenant_id or PLATFORM
        record(session, actor, "finding.close", tenant_id=whose, target=f"finding:{key}", after={"reason": reason})
        await session.flush()
    return row
