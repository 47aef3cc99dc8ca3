"""Limits of a user, of all users without their own, and of a tenant as a whole. A set replaces the one before.

Without a set the plan's apply. A tenant's admin sets its users' limits. Only a platform admin sets the tenant's own.
"""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.accounts.limits import Limits, LimitsSet
from api.services.accounts.lookups import reach_tenant, reach_user
from api.services.context import ServiceContext, publish_after_commit
from core.tenancy.principal import Scope
from metering.admission import entitlements
from metering.quota.default_limits import default_limits


async def find_user_limits(context: ServiceContext, user_id: UUID) -> LimitsSet:
    """The limits of a user. Raises NotFound."""
    async with context.transaction() as session:
        user = await reach_user(context, session, user_id)
        return await limits_in_force(context, session, user.tenant_id, user.id)


async def set_user_limits(context: ServiceContext, user_id: UUID, limits: Limits) -> LimitsSet:
    """Replaces the limits of a user. Raises NotFound."""
    async with context.transaction() as session:
        user = await reach_user(context, session, user_id)
        return await _replace(context, session, user.tenant_id, user.id, limits)


async def find_tenant_limits(context: ServiceContext, tenant: UUID | str) -> LimitsSet:
    """The limits of a tenant as a whole. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        return await limits_in_force(context, session, found.id, found.id)


async def set_tenant_limits(context: ServiceContext, tenant: UUID | str, limits: Limits) -> LimitsSet:
    """Replaces the limits of a tenant as a whole. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        found = await reach_tenant(context, session, tenant)
        return await _replace(context, session, found.id, found.id, limits)


async def find_default_limits(context: ServiceContext, tenant: UUID | str) -> LimitsSet:
    """The limits of each user of a tenant that has none of its own. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        return await limits_in_force(context, session, found.id, entitlements.ALL_USERS)


async def set_default_limits(context: ServiceContext, tenant: UUID | str, limits: Limits) -> LimitsSet:
    """Replaces the limits of each user of a tenant that has none of its own. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        return await _replace(context, session, found.id, entitlements.ALL_USERS, limits)


async def limits_in_force(
    context: ServiceContext, session: AsyncSession, tenant_id: UUID, subject_id: UUID
) -> LimitsSet:
    """The limits of a user, of the tenant when `subject_id` is its id, or of `entitlements.ALL_USERS`."""
    defaults = default_limits(context.settings)
    return LimitsSet.of(*await entitlements.read_limits(session, tenant_id, subject_id, defaults=defaults))


async def _replace(
    context: ServiceContext, session: AsyncSession, tenant_id: UUID, subject_id: UUID, limits: Limits
) -> LimitsSet:
    wanted = limits.as_set()
    await entitlements.set_limits(session, context.actor, tenant_id, subject_id, wanted)
    publish_after_commit(session, tenant_id)
    return LimitsSet.of(wanted, "set")
