"""Tenants, and the plan that each is on. Only the operator makes them."""

from datetime import datetime
from typing import Self
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from api.routes.access import PlatformAdmin, RuntimeDep, TenantAdmin, actor_of, tenant_filter
from api.routes.admin.fields import Body, PlanNumber, Slug, Text, example
from api.routes.admin.pages import DEFAULT_SIZE, Cursor, Page, PageSize, page
from api.routes.admin.scope import TenantId, reach_tenant
from billing.plans import find_plan, put_on_plan
from core.tenancy.accounts import create_tenant, find_tenant
from core.tenancy.audit import Actor
from core.tenancy.lists import list_tenants
from core.tenancy.models import Tenant

router = APIRouter()


class NewTenant(Body):
    """A customer of the operator; with `plan`, it starts on that plan's newest version."""

    model_config = example(slug="acme", name="Acme Pvt Ltd", plan="team")

    slug: Slug
    name: Text
    plan: Slug | None = None


class PlanChoice(Body):
    """A plan; its newest version unless one is named."""

    model_config = example(code="team", version=1)

    code: Slug
    version: PlanNumber | None = None


class PlanNamed(BaseModel):
    """A version of a plan."""

    code: str
    version: int


class TenantItem(BaseModel):
    """A tenant; `plan` is null when it is on none."""

    id: UUID
    slug: str
    name: str
    plan: PlanNamed | None
    created_at: datetime

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        """As it is answered."""
        plan = None
        if tenant.plan_code is not None and tenant.plan_version is not None:
            plan = PlanNamed(code=tenant.plan_code, version=tenant.plan_version)
        return cls(id=tenant.id, slug=tenant.slug, name=tenant.name, plan=plan, created_at=tenant.created_at)


async def open_tenant(session: AsyncSession, actor: Actor, new: NewTenant, zone: ZoneInfo) -> Tenant:
    """Makes the tenant and puts it on its plan. Raises Conflict for the slug, NotFound for the plan."""
    plan = None if new.plan is None else await find_plan(session, new.plan)
    tenant = await create_tenant(session, actor, slug=new.slug, name=new.name)
    if plan is not None:
        await put_on_plan(session, actor, tenant.id, plan, zone)
    return tenant


async def change_plan(
    session: AsyncSession, actor: Actor, tenant: UUID | str, choice: PlanChoice, zone: ZoneInfo
) -> Tenant:
    """Puts a tenant (id or slug) on a plan. Raises NotFound for either."""
    found = await find_tenant(session, tenant)
    await put_on_plan(session, actor, found.id, await find_plan(session, choice.code, choice.version), zone)
    return found


@router.post("/tenants", status_code=201)
async def new_tenant(body: NewTenant, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> TenantItem:
    """Make a tenant."""
    async with runtime.database.session() as session:
        tenant = await open_tenant(session, actor_of(request, principal), body, runtime.billing.zone)
    await runtime.changes.publish(tenant.id)
    return TenantItem.of(tenant)


@router.get("/tenants")
async def all_tenants(
    principal: TenantAdmin, runtime: RuntimeDep, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[TenantItem]:
    """All tenants, oldest first; for a tenant's admin, its own."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        rows = await list_tenants(session, tenant_id=tenant_filter(principal), after=cursor, limit=size + 1)
    return page(rows, size, TenantItem.of)


@router.get("/tenants/{tenant_id}")
async def one_tenant(tenant_id: TenantId, principal: TenantAdmin, runtime: RuntimeDep) -> TenantItem:
    """A tenant, by its id."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        return TenantItem.of(await reach_tenant(session, principal, tenant_id))


@router.put("/tenants/{tenant_id}/plan")
async def tenant_plan(
    tenant_id: TenantId, body: PlanChoice, principal: PlatformAdmin, runtime: RuntimeDep, request: Request
) -> TenantItem:
    """Put a tenant on a plan, from now on."""
    async with runtime.database.session() as session:
        tenant = await change_plan(session, actor_of(request, principal), tenant_id, body, runtime.billing.zone)
    await runtime.changes.publish(tenant.id)
    return TenantItem.of(tenant)
