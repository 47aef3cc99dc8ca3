"""What billing's operations lean on, put together once, and the one lock that they all take.

Everything that moves a tenant's subscriptions, periods, bills or money does it in
`BillingContext.tenant_transaction(...)`: one transaction
under that tenant's lock, which is taken first and therefore in one order everywhere (after it: the tenant's epoch,
then a document series). No call to Razorpay is made inside: an intent is stored, the call is made, its answer is
stored by a second transaction. Postgres away: `Unavailable`, nothing is done. Redis away: caches get as old as they
may.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.gst.invoice_numbers import Mode, mode_of
from billing.models import BillingAccount, BillingFinding
from billing.razorpay.client import Razorpay
from core.clock import now_ms
from core.postgres.database import Database
from core.queue import post_all
from core.redis.changes import Changes
from core.settings import Settings

DAY_MS = 86_400_000
_CHANGED = "naka.changed"
_WANTED = "naka.wanted"

INBOX, SUBSCRIPTIONS, CLOSES, COLLECT, LEVELS, ALERTS, RAZORPAY = (
    "billing-inbox",
    "billing-subscriptions",
    "billing-closes",
    "billing-collect",
    "billing-levels",
    "billing-alerts",
    "billing-razorpay",
)
"""The duties of billing, as the worker's queue names them (api.worker)."""


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

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        """As the environment says."""
        return cls(
            cycles=settings.billing_cycles,
            pay_within_ms=settings.billing_pay_within_days * DAY_MS,
            link_expires_ms=settings.billing_link_days * DAY_MS,
            addons=settings.billing_addons,
            refund_cap_paise=settings.billing_refund_cap_paise,
            hold_factor=settings.billing_hold_factor,
            hold_min_paise=settings.billing_hold_min_paise,
        )


@dataclass(frozen=True, slots=True)
class BillingContext:
    """One per process. `zone`: the operator's days and months."""

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

        After its commit: what it changed for admission is told, and the duties that it wants are posted; were that
        lost, their next tick does it.
        """
        async with self.database.session() as session:
            await lock_tenant(session, tenant_id)
            yield session
        if session.info.pop(_CHANGED, False):
            await self.changes.publish(tenant_id)
        await self.post(session.info.pop(_WANTED, ()))

    async def post(self, duties: Iterable[str]) -> None:
        """Has these duties done soon. What they are to find is committed."""
        if names := set(duties):
            async with self.database.session() as session:
                await post_all(session, names)


def build_billing_context(settings: Settings, database: Database, changes: Changes) -> BillingContext:
    """Connects nothing yet. Close `context.razorpay` at the end."""
    return BillingContext(
        database=database,
        razorpay=Razorpay.from_settings(settings),
        changes=changes,
        rules=Rules.of(settings),
        zone=ZoneInfo(settings.timezone),
        mode=mode_of(settings.razorpay_key_id),
        settings=settings,
    )


async def lock_tenant(session: AsyncSession, tenant_id: UUID) -> BillingAccount:
    """Waits for the tenant's lock, which lasts until the transaction ends."""
    await session.execute(insert(BillingAccount).values(tenant_id=tenant_id).on_conflict_do_nothing())
    return (
        await session.scalars(
            select(BillingAccount)
            .where(BillingAccount.tenant_id == tenant_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    ).one()


def invalidate_after_commit(session: AsyncSession) -> None:
    """Admission is to hear of this transaction, once it has committed."""
    session.info[_CHANGED] = True


def enqueue_after_commit(session: AsyncSession, *duties: str) -> None:
    """These duties are to be done soon, once this transaction (of `tenant_transaction`) has committed."""
    session.info.setdefault(_WANTED, set()).update(duties)


async def record_finding(
    session: AsyncSession, key: str, kind: str, *, tenant_id: UUID | None = None, **detail: Any
) -> None:
    """Something that a person should know, once: `key` names it. Seen in the admin API and by `naka doctor`."""
    values = {"key": key, "kind": kind, "tenant_id": tenant_id, "detail": detail, "seen_ms": now_ms()}
    await session.execute(insert(BillingFinding).values(**values).on_conflict_do_nothing())
