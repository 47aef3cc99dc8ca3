"""Context of a service call: who calls, the transaction, and publishing after the commit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import NotFound
from core.postgres.database import Database
from core.settings import Settings, SettingsError
from core.tenancy.audit import Actor
from core.tenancy.principal import Principal, Scope

if TYPE_CHECKING:  # a command without billing need not import the Razorpay SDK
    from billing.context import BillingContext

_CHANGED = "changed_tenants"


class Publisher(Protocol):
    """Tells every process to drop what it cached of a tenant; see `core.redis.changes`."""

    async def publish(self, tenant_id: UUID | None) -> None:
        """Tells them; None: of every tenant. Never raises for a Redis that is down."""


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """One caller, and the parts of the process that services use.

    `principal` None: the operator at the command line, who may do everything. Only there `changes` can be None, when
    REDIS_URL is not set, and `billing_context`, for commands that do not ask for it.
    """

    settings: Settings
    database: Database
    changes: Publisher | None
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
    def sees_cost(self) -> bool:
        """Whether the caller sees the provider's cost: the operator, and every tenant if the setting says so."""
        return self.is_platform_admin or self.settings.show_provider_cost

    @property
    def own(self) -> "ServiceContext":
        """The context without the operator's scope, which would reach every tenant: as an admin of its own tenant."""
        if self.principal is None or not self.principal.is_platform_admin:
            return self
        scopes = (self.principal.scopes | {Scope.TENANT_ADMIN, Scope.TENANT_MEMBERS}) - {Scope.PLATFORM_ADMIN}
        return replace(self, principal=replace(self.principal, scopes=scopes))

    @property
    def zone(self) -> ZoneInfo:
        """The operator's time zone, in which days and months are counted."""
        return ZoneInfo(self.settings.timezone)

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
        """Raises NotFound for a tenant out of the caller's reach, in the same words as for an unknown one."""
        if self.principal is not None and not self.principal.may_see(tenant_id):
            raise NotFound("no such tenant")

    @asynccontextmanager
    async def transaction(
        self, scope: Scope | None = None, *, database: Database | None = None, patient: bool = False
    ) -> AsyncIterator[AsyncSession]:
        """One transaction in which Postgres shows a tenant's admin its own rows only. Publishes after the commit.

        `database`: a pool other than the context's; `patient`: as `Database.session`. Raises Forbidden when the caller
        lacks `scope`, before it takes a connection.
        """
        if scope is not None:
            self.require(scope)
        async with (database or self.database).session(tenant_id=self.tenant_id, patient=patient) as session:
            yield session
        if self.changes is not None:
            for tenant_id in session.info.pop(_CHANGED, ()):
                await self.changes.publish(tenant_id)


def publish_after_commit(session: AsyncSession, tenant_id: UUID | None) -> None:
    """Processes drop what they cached of this tenant once `transaction` has committed; None: of every tenant."""
    session.info.setdefault(_CHANGED, {})[tenant_id] = None
