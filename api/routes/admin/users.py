"""The users of a tenant: whoever its limits and its reports should tell apart."""

from datetime import datetime
from typing import Self
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.auth.access import RuntimeDep, TenantAdmin, actor_of, tenant_filter
from api.routes.admin.scope import reach_tenant, reach_user
from api.routes.parameters import Cursor, PageSize, TenantId, UserId
from api.schemas.fields import Body, Text, example
from api.schemas.pages import DEFAULT_SIZE, Page, page
from core.tenancy.accounts import create_user
from core.tenancy.lists import list_users
from core.tenancy.models import User

router = APIRouter()


class NewUser(Body):
    """A user, under the name that the tenant knows it by."""

    model_config = example(external_id="user-4711")

    external_id: Text


class UserItem(BaseModel):
    """A user of a tenant."""

    id: UUID
    tenant_id: UUID
    external_id: str
    created_at: datetime
    erased_at: datetime | None
    """When the person behind it was erased: its books stay under a made-up name."""

    @classmethod
    def of(cls, user: User) -> Self:
        """As it is answered."""
        return cls.model_validate(user, from_attributes=True)


@router.post("/tenants/{tenant_id}/users", status_code=201)
async def new_user(
    tenant_id: TenantId, body: NewUser, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> UserItem:
    """Make a user of a tenant."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        tenant = await reach_tenant(session, principal, tenant_id)
        user = await create_user(session, actor_of(request, principal), tenant.id, external_id=body.external_id)
    return UserItem.of(user)


@router.get("/tenants/{tenant_id}/users")
async def users_of_tenant(
    tenant_id: TenantId,
    principal: TenantAdmin,
    runtime: RuntimeDep,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[UserItem]:
    """The users of a tenant, oldest first."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        tenant = await reach_tenant(session, principal, tenant_id)
        rows = await list_users(session, tenant.id, after=cursor, limit=size + 1)
    return page(rows, size, UserItem.of)


@router.get("/users/{user_id}")
async def one_user(user_id: UserId, principal: TenantAdmin, runtime: RuntimeDep) -> UserItem:
    """A user of a tenant."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        return UserItem.of(await reach_user(session, principal, user_id))
