"""Tenants, and the plan each is on."""

from uuid import UUID

from api.schemas.accounts.tenants import NewTenant, NewTenantWithAdmin, PlanChoice, TenantItem, TenantWithAdmin
from api.schemas.pages import Page, page
from api.services.context import ServiceContext, Transaction
from billing.catalogue.plans import find_plan, put_on_plan
from core.tenancy import accounts
from core.tenancy.lists import list_tenants as list_rows
from core.tenancy.principal import Scope

FIRST_SCOPES = [Scope.CHAT, Scope.USAGE_READ, Scope.TENANT_ADMIN]
"""Scopes of a new tenant's first key."""


async def create_tenant(context: ServiceContext, new: NewTenant) -> TenantItem:
    """Creates a tenant on its plan. Raises Conflict for a slug in use, NotFound for the plan."""
    async with context.transaction() as transaction:
        return await create_in(context, transaction, new)


async def create_tenant_with_admin(context: ServiceContext, new: NewTenantWithAdmin) -> TenantWithAdmin:
    """Creates a tenant, its first user and that user's key. Raises Conflict, NotFound."""
    async with context.transaction() as transaction:
        tenant = await create_in(context, transaction, new)
        session, actor = transaction.session, context.actor
        user = await accounts.create_user(session, actor, tenant.id, external_id=new.user)
        _, key = await accounts.create_key(
            session, actor, user, name="first", scopes=FIRST_SCOPES, models=None, expires_at=None, live=context.is_live
        )
    return TenantWithAdmin(tenant=tenant, user=user.external_id, key=key.plaintext)


async def create_in(context: ServiceContext, transaction: Transaction, new: NewTenant) -> TenantItem:
    """Creates a tenant in a transaction that creates more (its first user and key)."""
    context.require(Scope.PLATFORM_ADMIN)
    session = transaction.session
    plan = None if new.plan is None else await find_plan(session, new.plan)
    tenant = await accounts.create_tenant(session, context.actor, slug=new.slug, name=new.name)
    if plan is not None:
        await put_on_plan(session, context.actor, tenant.id, plan, context.zone)
    transaction.changed(tenant.id)
    return TenantItem.of(tenant)


async def list_tenants(context: ServiceContext, *, after: UUID | None, size: int) -> Page[TenantItem]:
    """Tenants, oldest first; for a tenant's admin, its own."""
    context.require(Scope.TENANT_ADMIN)
    async with context.transaction() as transaction:
        rows = await list_rows(transaction.session, tenant_id=context.tenant_id, after=after, limit=size + 1)
    return page(rows, size, TenantItem.of)


async def list_all_tenants(context: ServiceContext) -> list[TenantItem]:
    """Every tenant, oldest first."""
    context.require(Scope.PLATFORM_ADMIN)
    async with context.transaction() as transaction:
        return [TenantItem.of(row) for row in await list_rows(transaction.session)]


async def find_tenant(context: ServiceContext, tenant: UUID | str) -> TenantItem:
    """A tenant by id, or by slug for a platform admin. Raises NotFound, also for one out of the caller's reach."""
    context.require(Scope.TENANT_ADMIN)
    if isinstance(tenant, UUID):
        context.require_tenant(tenant)
    else:
        context.require(Scope.PLATFORM_ADMIN)
    async with context.transaction() as transaction:
        return TenantItem.of(await accounts.find_tenant(transaction.session, tenant))


async def change_plan(context: ServiceContext, tenant: UUID | str, choice: PlanChoice) -> TenantItem:
    """Puts a tenant on a plan, from now on. Raises NotFound for either."""
    context.require(Scope.PLATFORM_ADMIN)
    async with context.transaction() as transaction:
        session = transaction.session
        found = await accounts.find_tenant(session, tenant)
        plan = await find_plan(session, choice.code, choice.version)
        await put_on_plan(session, context.actor, found.id, plan, context.zone)
        transaction.changed(found.id)
        return TenantItem.of(found)
