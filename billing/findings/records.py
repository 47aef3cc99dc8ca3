"""The rows of findings, each recorded once under its key.

Shown in the admin API and by `naka doctor`. Postgres down: Unavailable.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import BillingFinding
from core.clock import now_ms
from core.errors import NotFound
from core.tenancy.audit import PLATFORM, Actor, record


async def record_finding(
    session: AsyncSession, key: str, kind: str, *, tenant_id: UUID | None = None, **detail: Any
) -> None:
    """Stores a finding, unless its key is known. One that was resolved opens again, but none that a person closed."""
    values = {"key": key, "kind": kind, "tenant_id": tenant_id, "detail": detail, "seen_ms": now_ms()}
    statement = insert(BillingFinding).values(**values)
    again = {"detail": detail, "seen_ms": values["seen_ms"], "closed_ms": None, "resolved": False}
    await session.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_=again, where=BillingFinding.resolved.is_(True))
    )


async def list_findings(
    session: AsyncSession, *, closed: bool = False, before: str | None = None, limit: int
) -> Sequence[BillingFinding]:
    """A page, newest first: open findings, or with `closed` the closed ones. `before`: the key of the last row seen."""
    position = tuple_(BillingFinding.seen_ms, BillingFinding.key)
    state = BillingFinding.closed_ms.is_not(None) if closed else BillingFinding.closed_ms.is_(None)
    query = select(BillingFinding).where(state).limit(limit)
    query = query.order_by(BillingFinding.seen_ms.desc(), BillingFinding.key.desc())
    if before is not None:
        last = select(BillingFinding.seen_ms, BillingFinding.key).where(BillingFinding.key == before)
        query = query.where(position < last.scalar_subquery())
    return (await session.scalars(query)).all()


async def close_finding(session: AsyncSession, actor: Actor, key: str, reason: str) -> BillingFinding:
    """Closes a finding for an operator; closing it again changes nothing. Raises NotFound."""
    row = await session.get(BillingFinding, key, with_for_update=True)
    if row is None:
        raise NotFound("no such finding")
    if row.closed_ms is None:
        row.closed_ms = now_ms()
        owner = row.tenant_id or PLATFORM
        record(session, actor, "finding.close", tenant_id=owner, target=f"finding:{key}", after={"reason": reason})
        await session.flush()
    return row


async def resolve_finding(session: AsyncSession, key: str, now_ms: int) -> None:
    """Closes a finding whose cause is gone, without an operator."""
    open_one = update(BillingFinding).where(BillingFinding.key == key, BillingFinding.closed_ms.is_(None))
    await session.execute(open_one.values(closed_ms=now_ms, resolved=True))
