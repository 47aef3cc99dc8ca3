"""The two parties of every bill: the operator's profile and each tenant's. A change leaves earlier bills as they are.

Reading a tenant's profile is written to the audit log, because it holds personal data.
"""

from uuid import UUID

import msgspec

from api.schemas.billing.profiles import OperatorBody, OperatorItem, ProfileBody, ProfileItem
from api.services.accounts.lookups import own_tenant, reach_tenant
from api.services.context import ServiceContext
from billing.catalogue import profiles
from core.tenancy.audit import record_read
from core.tenancy.principal import Scope


async def find_operator(context: ServiceContext) -> OperatorItem | None:
    """The supplier on bills; None before it is set."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        own = await profiles.find_supplier(session)
    return None if own is None else OperatorItem.of(own)


async def set_operator(context: ServiceContext, new: OperatorBody) -> OperatorItem:
    """Replaces the supplier on bills. Raises Invalid."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        own = msgspec.convert(new.model_dump(), profiles.Supplier)
        return OperatorItem.of(await profiles.set_supplier(session, context.actor, own))


async def find_profile(context: ServiceContext, tenant: UUID | str) -> ProfileItem | None:
    """The tenant as its bills show it; None before it is set. Raises NotFound for the tenant."""
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        tenant_id = (await reach_tenant(context, session, tenant)).id
        profile = await profiles.find_profile(session, tenant_id)
        record_read(session, context.actor, "profile", tenant_id=tenant_id, target=f"tenant:{tenant_id}")
    return None if profile is None else ProfileItem.of(profile)


async def has_profile(context: ServiceContext) -> bool:
    """Whether the caller's tenant has a profile, which a subscription needs."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        return await profiles.find_profile(session, tenant_id) is not None


async def set_profile(context: ServiceContext, tenant: UUID | str, new: ProfileBody) -> ProfileItem:
    """Replaces the tenant's profile. Raises NotFound for the tenant, Invalid."""
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        tenant_id = (await reach_tenant(context, session, tenant)).id
    profile = msgspec.convert(new.model_dump(), profiles.Profile)
    async with context.billing.tenant_transaction(tenant_id) as session:
        return ProfileItem.of(await profiles.set_profile(session, context.actor, tenant_id, profile))
