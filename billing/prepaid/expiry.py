"""Expiry of promotional credit. Usage from before is billed first, so that it draws the credit that expires.

Credit can be used until the duty has run, within a minute of its time. Money never expires.
"""

from uuid import UUID

from sqlalchemy import Select, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from billing.access.projection import project
from billing.context import BillingContext
from billing.invoicing.issuing import parties_of
from billing.invoicing.overage_bills import bill_usage
from billing.models import BillingPeriod, WalletEntry
from billing.models.states import PeriodState, WalletEntryKind
from billing.readings import read_period
from billing.wallet.bounds import IS_PREPAID, prepaid_periods
from billing.wallet.entries import add_entry, lots_of
from core.clock import now_ms
from core.ids import uuid7


def with_expired_credit(at_ms: int) -> Select[UUID]:
    """Tenants with something left of a promotion whose time is over."""
    taken = aliased(WalletEntry)
    return (
        select(WalletEntry.tenant_id)
        .distinct()
        .outerjoin(taken, and_(taken.tenant_id == WalletEntry.tenant_id, taken.of_id == WalletEntry.id))
        .where(WalletEntry.kind == WalletEntryKind.PROMOTION, WalletEntry.expires_ms <= at_ms)
        .group_by(WalletEntry.tenant_id, WalletEntry.id, WalletEntry.paise)
        .having(WalletEntry.paise + func.coalesce(func.sum(taken.paise), 0) > 0)
    )


async def expire_credit(context: BillingContext, tenant_id: UUID) -> None:
    """Takes what is left of a tenant's promotions whose time is over. Idempotent."""
    async with context.tenant_transaction(tenant_id) as session:
        await _expire(session, context, tenant_id, now_ms())


async def _expire(session: AsyncSession, context: BillingContext, tenant_id: UUID, at_ms: int) -> None:
    query = select(BillingPeriod).where(
        BillingPeriod.tenant_id == tenant_id,
        BillingPeriod.state == PeriodState.OPEN,
        BillingPeriod.starts_ms <= at_ms,
        IS_PREPAID,
    )
    parties = await parties_of(session, tenant_id)
    for period in await session.scalars(query.order_by(BillingPeriod.starts_ms)):
        reading = await read_period(session, tenant_id, period.period_id)
        await bill_usage(session, context, period, reading, parties, at_ms)
    await session.flush()
    # Usage whose bill is held for a profile will still draw its price.
    owed = sum(one.owed_paise for one in await prepaid_periods(session, tenant_id, at_ms))
    for lot in await lots_of(session, tenant_id):
        if lot.expires_ms is None or lot.expires_ms > at_ms or lot.left_paise <= 0:
            continue
        kept = min(owed, lot.left_paise)
        owed -= kept
        if lot.left_paise > kept:
            await add_entry(
                session,
                tenant_id,
                WalletEntryKind.EXPIRY,
                kept - lot.left_paise,
                f"expiry:{lot.id}:{uuid7(at_ms)}",
                at_ms,
                of_id=lot.id,
            )
    await project(session, context.zone, tenant_id, at_ms)
