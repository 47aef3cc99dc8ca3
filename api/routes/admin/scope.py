"""What an admin may reach. Another tenant and no tenant are one: NotFound, in the same words."""

from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

from fastapi import Path, Query
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import tenant_filter
from api.schemas.fields import EXAMPLE_ID
from core.errors import NotFound
from core.tenancy.accounts import find_tenant, find_user
from core.tenancy.models import ApiKey, Tenant, User
from core.tenancy.principal import Forbidden, Principal, Scope

GRANTABLE = frozenset({Scope.CHAT, Scope.USAGE_READ, Scope.TENANT_ADMIN})
"""What a tenant's admin may hand out; `platform:admin` is for who has it."""

TenantId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
UserId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
TenantWanted = Annotated[UUID | None, Query(alias="tenant_id", description="Only this one", examples=[EXAMPLE_ID])]


async def reach_tenant(session: AsyncSession, principal: Principal, tenant_id: UUID) -> Tenant:
    """The tenant, if it is this admin's business. Raises NotFound."""
    if not principal.may_see(tenant_id):
        raise NotFound("no such tenant")
    return await find_tenant(session, tenant_id)


async def reach_user(session: AsyncSession, principal: Principal, user_id: UUID) -> User:
    """The user, if it is this admin's business. Raises NotFound."""
    return await find_user(session, user_id, tenant_id=tenant_filter(principal))


async def reach_key(session: AsyncSession, principal: Principal, key_id: UUID) -> ApiKey:
    """The key, to read about it, if it is this admin's business. Raises NotFound."""
    key = await session.scalar(select(ApiKey).where(ApiKey.id == key_id))
    if key is None or not principal.may_see(key.tenant_id):
        raise NotFound("no such key")
    return key


async def confine(session: AsyncSession, principal: Principal, wanted: UUID | None) -> UUID | None:
    """The tenant that a list is about, None for all of them. Raises NotFound when `wanted` is out of reach."""
    if wanted is None:
        return tenant_filter(principal)
    return (await reach_tenant(session, principal, wanted)).id


def require_grantable(principal: Principal, scopes: Iterable[str]) -> None:
    """Raises Forbidden when a key with `scopes` could do what this admin may not hand out."""
    if not principal.is_platform_admin and not GRANTABLE.issuperset(scopes):
        raise Forbidden("only a platform admin may make, show or end a key with platform:admin")
