"""Tenants, and the plan each is on."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.accounts.tenants import (
    NewTenant,
    NewTenantWithAdmin,
    NewUsers,
    PlanChoice,
    TenantItem,
    TenantWithAdmin,
)
from api.schemas.pages import Page, one_more, page
from api.services.accounts.lookups import reach_tenant
from api.services.context import ServiceContext, publish_after_commit
from core.tenancy import accounts
from core.tenancy.lists import list_tenants as list_rows
from core.tenancy.models import Tenant
from core.tenancy.principal import Scope

FIRST_SCOPES = [Scope.CHAT, Scope.USAGE_READ, Scope.TENANT_ADMIN]
"""Scopes of a new tenant's first key."""


async def create_tenant(context: ServiceContext, new: NewTenant) -> TenantItem:
    """Creates a tenant on its plan, or on the setting's. Raises Conflict for a slug in use, NotFound for the plan."""
    async with context.transaction() as session:
        return await _create(context, session, new)


async def create_tenant_with_admin(context: ServiceContext, new: NewTenantWithAdmin) -> TenantWithAdmin:
    """Creates a tenant, its first user and that user's key. Raises Conflict, NotFound."""
    async with context.transaction() as session:
        tenant, actor = await _create(context, session, new), context.actor
        user = await accounts.create_user(session, actor, tenant.id, external_id=new.user)
        _, key = await accounts.create_key(
            session,
            actor,
            user,
            name="first",
            scopes=FIRST_SCOPES,
            models=None,
            expires_at=None,
            live=context.settings.is_production,
        )
    return TenantWithAdmin(tenant=tenant, user=user.external_id, key=key.plaintext)


async def _create(context: ServiceContext, session: AsyncSession, new: NewTenant) -> TenantItem:
    from billing.catalogue.plans import find_plan, put_on_plan  # noqa: PLC0415 - lists need no billing

    context.require(Scope.PLATFORM_ADMIN)
    code = new.plan or context.settings.default_plan
    plan = await find_plan(session, code) if code else None
    tenant = await accounts.create_tenant(session, context.actor, slug=new.slug, name=new.name)
    if plan is not None:
        await put_on_plan(session, context.actor, tenant.id, plan, context.zone)
    publish_after_commit(session, tenant.id)
    return TenantItem.of(tenant)


async def list_tenants(
    context: ServiceContext, *, after: UUID | None = None, size: int | None = None
) -> Page[TenantItem]:
    """Tenants, oldest first, all without a `size`; for a tenant's admin, its own."""
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        rows = await list_rows(session, tenant_id=context.tenant_id, after=after, limit=one_more(size))
    return page(rows, size, TenantItem.of)


async def find_tenant(context: ServiceContext, tenant: UUID | str) -> TenantItem:
    """A tenant by id, or by slug for a platform admin. Raises NotFound, also for one out of the caller's reach."""
    async with context.transaction() as session:
        return TenantItem.of(await reach_tenant(context, session, tenant))


async def find_new_users(context: ServiceContext, tenant: UUID | str) -> NewUsers:
    """Whether requests create users of a tenant. Raises NotFound."""
    async with context.transaction() as session:
        return NewUsers.of(await reach_tenant(context, session, tenant))


async def set_new_users(context: ServiceContext, tenant: UUID | str, wanted: NewUsers) -> NewUsers:
    """Sets whether requests create users of a tenant, and how many a minute. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        await accounts.set_new_users(
            session,
            context.actor,
            found.id,
            makes_users=wanted.makes_users,
            new_users_per_minute=wanted.new_users_per_minute,
        )
        publish_after_commit(session, found.id)
    return wanted


async def tenant_names(context: ServiceContext, ids: Iterable[UUID | None]) -> dict[UUID, str]:
    """The names of tenants by id. Unknown ids are left out."""
    context.require(Scope.PLATFORM_ADMIN)
    wanted = {each for each in ids if each is not None}
    if not wanted:
        return {}
    async with context.transaction() as session:
        rows = await session.execute(select(Tenant.id, Tenant.name).where(Tenant.id.in_(wanted)))
        return {row.id: row.name for row in rows}


async def change_plan(context: ServiceContext, tenant: UUID | str, choice: PlanChoice) -> TenantItem:
    """Changes a tenant's plan, from now on. Raises NotFound for either."""
    from billing.catalogue.plans import find_plan, put_on_plan  # noqa: PLC0415 - lists need no billing

    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        found = await accounts.find_tenant(session, tenant)
        plan = await find_plan(session, choice.code, choice.version)
        await put_on_plan(session, context.actor, found.id, plan, context.zone)
        publish_after_commit(session, found.id)
        return TenantItem.of(found)
