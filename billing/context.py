"""The dependencies of billing's operations, and the tenant lock that they all take.

Lock order: the tenant, then its epoch, then a document series. No call to Razorpay is made under it (`billing.writes`).
Postgres down: Unavailable, nothing is done. Redis down: caches expire by their own time.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.gst.invoice_numbers import Mode, mode_of
from billing.models import Bill, BillingAccount, Charge, Mandate, Refund, Subscription
from billing.razorpay.client import Razorpay
from core.clock import DAY_MS
from core.errors import NotFound
from core.postgres.database import Database
from core.queue import post_all
from core.redis.changes import Changes
from core.settings import Settings

Row = TypeVar("Row", bound=Bill | Charge | Mandate | Refund | Subscription)

_CHANGED = "naka.changed"
_DUTIES = "naka.duties"

INBOX, SUBSCRIPTIONS, MANDATES, WALLETS, THRESHOLDS, CLOSES, COLLECT, LEVELS, ALERTS, LEDGER, RAZORPAY = (
    "billing-inbox",
    "billing-subscriptions",
    "billing-mandates",
    "billing-wallets",
    "billing-thresholds",
    "billing-closes",
    "billing-collect",
    "billing-levels",
    "billing-alerts",
    "billing-ledger",
    "billing-razorpay",
)
"""Names of billing's duties in the worker's queue (`api.worker`)."""
SHORTEST_DUE_MS = 3 * DAY_MS
"""A bill is due three days on at the earliest: a debit is announced, and takes up to 36 hours."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of billing. Times in milliseconds, amounts in paise."""

    cycles: int
    """The `total_count` of a subscription."""
    pay_within_ms: int
    link_expires_ms: int
    addons: bool
    refund_cap_paise: int
    hold_factor: int
    hold_min_paise: int


@dataclass(frozen=True, slots=True)
class BillingContext:
    """One per process. `zone`: of the operator's days and months."""

    database: Database
    razorpay: Razorpay
    changes: Changes
    rules: Rules
    zone: ZoneInfo
    mode: Mode
    settings: Settings

    @asynccontextmanager
    async def tenant_transaction(self, tenant_id: UUID) -> AsyncIterator[AsyncSession]:
        """One transaction under the tenant's lock.

        After the commit it publishes changes for admission and enqueues the requested duties. If that is lost, the
        duties' schedule makes up for it.
        """
        async with self.database.session() as session:
            await lock_tenant(session, tenant_id)
            yield session
        if session.info.pop(_CHANGED, False):
            await self.changes.publish(tenant_id)
        await self.post(session.info.pop(_DUTIES, ()))

    @asynccontextmanager
    async def locked(self, row: Row) -> AsyncIterator[tuple[AsyncSession, Row]]:
        """A `tenant_transaction` with the row, read again under the lock."""
        async with self.tenant_transaction(row.tenant_id) as session:
            yield session, await session.get_one(type(row), (row.tenant_id, row.id))

    @asynccontextmanager
    async def locked_by_id(self, table: type[Row], row_id: UUID) -> AsyncIterator[tuple[AsyncSession, Row]]:
        """A `tenant_transaction` with the row of this id, of any tenant. Raises NotFound."""
        async with self.database.session() as session:
            tenant_id = await session.scalar(select(table.tenant_id).where(table.id == row_id))
        if tenant_id is None:
            raise NotFound(f"no such {table.__name__.lower()}")
        async with self.tenant_transaction(tenant_id) as session:
            yield session, await session.get_one(table, (tenant_id, row_id))

    async def read(self, table: type[Row], tenant_id: UUID, row_id: UUID | None) -> Row:
        """The row as it is now, without a lock. Raises Unavailable."""
        async with self.database.session() as session:
            return await session.get_one(table, (tenant_id, row_id))

    async def post(self, duties: Iterable[str]) -> None:
        """Runs these duties soon. Commit what they need first."""
        if names := set(duties):
            async with self.database.session() as session:
                await post_all(session, names)


def build_billing_context(settings: Settings, database: Database, changes: Changes) -> BillingContext:
    """Opens no connection yet. Close `context.razorpay` at the end."""
    return BillingContext(
        database=database,
        razorpay=Razorpay.from_settings(settings),
        changes=changes,
        rules=Rules(
            cycles=settings.billing_cycles,
            pay_within_ms=max(settings.billing_pay_within_days * DAY_MS, SHORTEST_DUE_MS),
            link_expires_ms=settings.billing_link_days * DAY_MS,
            addons=settings.billing_addons,
            refund_cap_paise=settings.billing_refund_cap_paise,
            hold_factor=settings.billing_hold_factor,
            hold_min_paise=settings.billing_hold_min_paise,
        ),
        zone=ZoneInfo(settings.timezone),
        mode=mode_of(settings.razorpay_key_id),
        settings=settings,
    )


async def lock_tenant(session: AsyncSession, tenant_id: UUID) -> BillingAccount:
    """Takes the tenant's lock until the end of the transaction."""
    await session.execute(insert(BillingAccount).values(tenant_id=tenant_id).on_conflict_do_nothing())
    return await session.get_one(BillingAccount, tenant_id, with_for_update=True, populate_existing=True)


def invalidate_after_commit(session: AsyncSession) -> None:
    """Publishes a change for admission once this transaction has committed."""
    session.info[_CHANGED] = True


def enqueue_after_commit(session: AsyncSession, *duties: str) -> None:
    """Runs these duties soon after this `tenant_transaction` has committed."""
    session.info.setdefault(_DUTIES, set()).update(duties)
