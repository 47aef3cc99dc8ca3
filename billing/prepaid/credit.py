"""Promotional credit: given by an operator, or by a coupon, once per tenant. It expires, and is never refunded.

Postgres down: Unavailable.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import BillingContext
from billing.models import Coupon, WalletEntry
from billing.models.states import WalletEntryKind
from billing.wallet.entries import add_entry
from core.clock import DAY_MS, now_ms
from core.errors import Conflict, Invalid, NotFound
from core.ids import uuid7
from core.tenancy.audit import PLATFORM, Actor, record


async def give_credit(
    context: BillingContext,
    actor: Actor,
    tenant_id: UUID,
    paise: int,
    *,
    reason: str,
    days: int | None = None,
    reference: str | None = None,
) -> WalletEntry:
    """Gives a tenant credit, once per reference. Raises Conflict for a reference of another amount."""
    at_ms = now_ms()
    async with context.tenant_transaction(tenant_id) as session:
        expires_ms = None if days is None else at_ms + days * DAY_MS
        name = f"credit:{reference or uuid7(at_ms)}"
        if await _promote(session, tenant_id, paise, name, at_ms, expires_ms, reason):
            after = {"paise": paise, "expires_ms": expires_ms, "reason": reason}
            record(session, actor, "wallet.credit", tenant_id=tenant_id, target=f"tenant:{tenant_id}", after=after)
            await project(session, context.zone, tenant_id, at_ms)
        entry = await _entry(session, tenant_id, name)
        if entry.paise != paise:
            raise Conflict("another credit has this reference")
        return entry


async def redeem_coupon(context: BillingContext, actor: Actor, tenant_id: UUID, code: str) -> WalletEntry:
    """Gives a tenant the credit of a coupon. Raises Invalid for a code that gives none, Conflict for a second use."""
    at_ms, code = now_ms(), code.upper()
    async with context.tenant_transaction(tenant_id) as session:
        coupon = await session.get(Coupon, code, with_for_update=True)
        if coupon is None or (coupon.expires_ms is not None and coupon.expires_ms <= at_ms):
            raise Invalid("this code is not valid")
        expires_ms = None if coupon.credit_days is None else at_ms + coupon.credit_days * DAY_MS
        name = f"coupon:{code}"
        query = select(WalletEntry.id).where(WalletEntry.tenant_id == tenant_id, WalletEntry.reference == name)
        if await session.scalar(query) is not None:
            raise Conflict("this code was used before")
        if coupon.max_uses is not None and coupon.uses >= coupon.max_uses:
            raise Invalid("this code is used up")
        coupon.uses += 1
        await _promote(session, tenant_id, coupon.paise, name, at_ms, expires_ms, f"coupon {code}")
        after = {"coupon": code, "paise": coupon.paise, "expires_ms": expires_ms}
        record(session, actor, "wallet.coupon", tenant_id=tenant_id, target=f"tenant:{tenant_id}", after=after)
        await project(session, context.zone, tenant_id, at_ms)
        return await _entry(session, tenant_id, name)


async def new_coupon(
    session: AsyncSession,
    actor: Actor,
    *,
    code: str,
    paise: int,
    credit_days: int | None,
    expires_ms: int | None,
    max_uses: int | None,
) -> Coupon:
    """Creates a coupon. Raises Conflict for a code that exists."""
    code = code.upper()
    after = {"paise": paise, "credit_days": credit_days, "expires_ms": expires_ms, "max_uses": max_uses}
    statement = insert(Coupon).values(code=code, created_ms=now_ms(), **after)
    coupon: Coupon | None = await session.scalar(statement.on_conflict_do_nothing().returning(Coupon))
    if coupon is None:
        raise Conflict("there is a coupon with this code")
    record(session, actor, "coupon.create", tenant_id=PLATFORM, target=f"coupon:{code}", after=after)
    return coupon


async def end_coupon(session: AsyncSession, actor: Actor, code: str) -> Coupon:
    """Ends a coupon now; credit that it gave stays. Raises NotFound."""
    coupon = await session.get(Coupon, code.upper(), with_for_update=True)
    if coupon is None:
        raise NotFound("no such coupon")
    at_ms = now_ms()
    if coupon.expires_ms is None or coupon.expires_ms > at_ms:
        coupon.expires_ms = at_ms
        record(session, actor, "coupon.end", tenant_id=PLATFORM, target=f"coupon:{coupon.code}")
        await session.flush()
    return coupon


async def list_coupons(session: AsyncSession, *, before: str | None = None, limit: int) -> Sequence[Coupon]:
    """A page of coupons, newest first. `before`: the code of the last coupon seen."""
    query = select(Coupon).order_by(Coupon.created_ms.desc(), Coupon.code.desc()).limit(limit)
    if before is not None:
        last = select(Coupon.created_ms, Coupon.code).where(Coupon.code == before.upper())
        query = query.where(tuple_(Coupon.created_ms, Coupon.code) < last.scalar_subquery())
    return (await session.scalars(query)).all()


async def _promote(
    session: AsyncSession,
    tenant_id: UUID,
    paise: int,
    reference: str,
    now_ms: int,
    expires_ms: int | None,
    reason: str,
) -> bool:
    kind = WalletEntryKind.PROMOTION
    return await add_entry(session, tenant_id, kind, paise, reference, now_ms, expires_ms=expires_ms, reason=reason)


async def _entry(session: AsyncSession, tenant_id: UUID, reference: str) -> WalletEntry:
    query = select(WalletEntry).where(WalletEntry.tenant_id == tenant_id, WalletEntry.reference == reference)
    return (await session.scalars(query)).one()
