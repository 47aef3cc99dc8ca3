"""Rows within the caller's reach. A row of another tenant and an unknown one raise NotFound in the same words."""

from collections.abc import Iterable
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.pages import Page, page
from api.schemas.rows import Row
from api.services.context import ServiceContext
from core.errors import NotFound
from core.tenancy.accounts import find_tenant, find_user
from core.tenancy.models import Tenant, User
from core.tenancy.principal import Forbidden, Scope

R = TypeVar("R", bound=Row)
GRANTABLE = frozenset({Scope.CHAT, Scope.CHAT_AS_USER, Scope.USAGE_READ, Scope.TENANT_READ, Scope.TENANT_ADMIN})
"""Scopes that a tenant's admin may grant. Only a platform admin grants others; an owner has its scope as a member."""


async def reach_tenant(context: ServiceContext, session: AsyncSession, tenant: UUID | str) -> Tenant:
    """A tenant by id, or by slug for a platform admin. Raises NotFound, Forbidden."""
    context.require(Scope.TENANT_ADMIN)
    if isinstance(tenant, UUID):
        context.require_tenant(tenant)
    else:
        context.require(Scope.PLATFORM_ADMIN)
    return await find_tenant(session, tenant)


async def operated_tenant(context: ServiceContext, tenant: UUID | str) -> UUID:
    """The id of a tenant that a platform admin names by id or slug. Raises NotFound, Forbidden."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        return (await reach_tenant(context, session, tenant)).id


async def reach_user(context: ServiceContext, session: AsyncSession, user_id: UUID) -> User:
    """A user by id. Raises NotFound, Forbidden."""
    context.require(Scope.TENANT_ADMIN)
    return await find_user(session, user_id, tenant_id=context.tenant_id)


def own_tenant(context: ServiceContext) -> UUID:
    """The tenant of a caller confined to one. Raises Forbidden; NotFound for an operator, who is confined to none."""
    context.require(Scope.TENANT_ADMIN)
    if context.tenant_id is None:
        raise NotFound("no such tenant")
    return context.tenant_id


async def confine(context: ServiceContext, session: AsyncSession, wanted: UUID | str | None) -> UUID | None:
    """The tenant of a list, or None for every tenant. Raises NotFound, Forbidden."""
    context.require(Scope.TENANT_ADMIN)
    return context.tenant_id if wanted is None else (await reach_tenant(context, session, wanted)).id


async def list_newest(
    context: ServiceContext,
    shape: type[R],
    table: Any,
    tenant: UUID | str | None,
    *,
    before: UUID | None,
    size: int,
    **equal: object,
) -> Page[R]:
    """A page of a table with ids by time, newest first: of every tenant unless one is named, with these values if any.

    Raises NotFound, Forbidden.
    """
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        equal |= {"tenant_id": await confine(context, session, tenant)}
        return await newest_page(session, shape, table, before=before, size=size, **equal)


async def newest_page(
    session: AsyncSession, shape: type[R], table: Any, *, before: UUID | None, size: int, **equal: object
) -> Page[R]:
    """A page of a table with ids by time, newest first: of the rows with these values, where one is given."""
    query = select(table).where(*(getattr(table, name) == each for name, each in equal.items() if each is not None))
    query = query if before is None else query.where(table.id < before)
    rows = (await session.scalars(query.order_by(table.id.desc()).limit(size + 1))).all()
    return page(rows, size, shape.of)


def require_grantable(context: ServiceContext, scopes: Iterable[str]) -> None:
    """Raises Forbidden for scopes that this caller may not grant."""
    if not context.is_platform_admin and not GRANTABLE.issuperset(scopes):
        raise Forbidden("only a platform admin may make, show or end a key with these permissions")
