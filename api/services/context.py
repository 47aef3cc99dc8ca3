"""Context of a service call: who calls, the transaction, and publishing after the commit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import NotFound
from core.postgres.database import Database
from core.redis.changes import Changes
from core.settings import Settings, SettingsError
from core.tenancy.audit import Actor
from core.tenancy.principal import Principal, Scope

if TYPE_CHECKING:  # a command without billing need not import the Razorpay SDK
    from billing.context import BillingContext


@dataclass(slots=True)
class Transaction:
    """One open transaction. Its changes become visible, and are published, when the block of `transaction()` ends."""

    session: AsyncSession
    changed_tenants: list[UUID | None] = field(default_factory=list)

    def changed(self, tenant_id: UUID | None) -> None:
        """Processes drop what they cached of this tenant after the commit; None: of every tenant."""
        self.changed_tenants.append(tenant_id)


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """One caller with the parts of the process that services use.

    `principal` None: the operator at the command line, who may do everything. `changes` and `billing` are None only
    there, when REDIS_URL is not set.
    """

    settings: Settings
    database: Database
    changes: Changes | None
    actor: Actor
    principal: Principal | None = None
    billing_context: "BillingContext | None" = None

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant this caller is confined to; None for a platform admin and the command line."""
        return None if self.is_platform_admin or self.principal is None else self.principal.tenant_id

    @property
    def is_platform_admin(self) -> bool:
        """Whether the caller may act on every tenant."""
        return self.principal is None or self.principal.is_platform_admin

    @property
    def zone(self) -> ZoneInfo:
        """The operator's time zone, in which days and months are counted."""
        return ZoneInfo(self.settings.timezone)

    @property
    def is_live(self) -> bool:
        """Whether new keys carry the prefix `live`."""
        return self.settings.naka_env == "production"

    @property
    def billing(self) -> "BillingContext":
        """The context of billing's operations. Raises SettingsError at a command line without REDIS_URL."""
        if self.billing_context is None:
            raise SettingsError("REDIS_URL is not set")
        return self.billing_context

    def require(self, scope: Scope) -> None:
        """Raises Forbidden when the caller lacks `scope`."""
        if self.principal is not None:
            self.principal.require(scope)

    def require_tenant(self, tenant_id: UUID) -> None:
        """Raises NotFound for a tenant out of the caller's reach, in the words of one that does not exist."""
        if self.principal is not None and not self.principal.may_see(tenant_id):
            raise NotFound("no such tenant")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction in which Postgres shows a tenant's admin its own rows only. Publishes after the commit."""
        async with self.database.session(tenant_id=self.tenant_id) as session:
            opened = Transaction(session)
            yield opened
        if self.changes is not None:
            for tenant_id in dict.fromkeys(opened.changed_tenants):
                await self.changes.publish(tenant_id)
