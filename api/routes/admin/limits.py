"""Limits of a user, and of a tenant as a whole. A set replaces the one before; none set: the plan's hold.

A tenant's admin sets its users' limits. The tenant's own are what the operator allows it, so only a platform admin
sets those.
"""

from typing import Annotated, Self
from uuid import UUID

import msgspec
from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import PlatformAdmin, RuntimeDep, TenantAdmin, actor_of, tenant_filter
from api.routes.admin.scope import reach_tenant, reach_user
from api.routes.parameters import TenantId, UserId
from api.schemas.fields import Body, ConcurrencyLimit, LimitValue, example
from core.settings import Settings
from core.tenancy.audit import Actor
from metering.admission.entitlements import LimitSource, read_limits, set_limits
from metering.quota.default_limits import default_limits
from metering.quota.limits import METERS, WINDOWS, LimitSet, Meter
from metering.quota.windows import WindowKind

router = APIRouter()


class LimitItem(Body):
    """At most `limit` of `meter` in each `window`; spend in micro-USD. 0 lets nothing through."""

    meter: Meter
    window: WindowKind
    limit: LimitValue


def _once_each(limits: list[LimitItem]) -> list[LimitItem]:
    if len({(item.meter, item.window) for item in limits}) < len(limits):
        raise ValueError("a meter has one limit in a window")
    return limits


class Limits(Body):
    """A set of limits. `concurrency`: requests at a time, null for no bound."""

    model_config = example(
        limits=[
            {"meter": "tokens", "window": "day", "limit": 200_000},
            {"meter": "spend", "window": "period", "limit": 25_000_000},
        ],
        concurrency=4,
    )

    limits: Annotated[list[LimitItem], Field(max_length=len(METERS) * len(WINDOWS)), AfterValidator(_once_each)]
    concurrency: ConcurrencyLimit | None = None

    def as_set(self) -> LimitSet:
        """As metering takes it."""
        return msgspec.convert(self.model_dump(), LimitSet)


class LimitsSet(BaseModel):
    """The limits that hold, and where they come from.

    They are `set` for this one, given by the tenant's `plan`, or the `default` of a tenant without a plan.
    """

    limits: list[LimitItem]
    concurrency: int | None
    source: LimitSource

    @classmethod
    def of(cls, limits: LimitSet, source: LimitSource) -> Self:
        """As it is answered."""
        return cls.model_validate({**msgspec.to_builtins(limits), "source": source})


async def replace_limits(
    session: AsyncSession, actor: Actor, tenant_id: UUID, subject_id: UUID, limits: Limits
) -> LimitsSet:
    """Sets the limits of a user, or of the tenant itself when `subject_id` is its id."""
    wanted = limits.as_set()
    await set_limits(session, actor, tenant_id, subject_id, wanted)
    return LimitsSet.of(wanted, "set")


async def limits_that_hold(session: AsyncSession, settings: Settings, tenant_id: UUID, subject_id: UUID) -> LimitsSet:
    """The limits of a user, or of the tenant itself when `subject_id` is its id."""
    return LimitsSet.of(*await read_limits(session, tenant_id, subject_id, defaults=default_limits(settings)))


@router.get("/users/{user_id}/limits")
async def user_limits(user_id: UserId, principal: TenantAdmin, runtime: RuntimeDep) -> LimitsSet:
    """The limits of a user."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        user = await reach_user(session, principal, user_id)
        return await limits_that_hold(session, runtime.settings, user.tenant_id, user.id)


@router.put("/users/{user_id}/limits")
async def set_user_limits(
    user_id: UserId, body: Limits, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> LimitsSet:
    """Replace the limits of a user."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        user = await reach_user(session, principal, user_id)
        answer = await replace_limits(session, actor_of(request, principal), user.tenant_id, user.id, body)
    await runtime.changes.publish(user.tenant_id)
    return answer


@router.get("/tenants/{tenant_id}/limits")
async def tenant_limits(tenant_id: TenantId, principal: TenantAdmin, runtime: RuntimeDep) -> LimitsSet:
    """The limits of a tenant as a whole."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        tenant = await reach_tenant(session, principal, tenant_id)
        return await limits_that_hold(session, runtime.settings, tenant.id, tenant.id)


@router.put("/tenants/{tenant_id}/limits")
async def set_tenant_limits(
    tenant_id: TenantId, body: Limits, principal: PlatformAdmin, runtime: RuntimeDep, request: Request
) -> LimitsSet:
    """Replace the limits of a tenant as a whole."""
    async with runtime.database.session() as session:
        tenant = await reach_tenant(session, principal, tenant_id)
        answer = await replace_limits(session, actor_of(request, principal), tenant.id, tenant.id, body)
    await runtime.changes.publish(tenant.id)
    return answer
