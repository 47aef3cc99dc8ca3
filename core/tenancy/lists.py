"""Pages of tenants, users and keys (oldest first), and of the audit log (newest first).

The cursor is the id of the last row. `tenant_id` None means every tenant; the caller authorises it.
"""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.postgres.index_pages import HIGHEST, KeysetPage, KeysetQuery, Sift, read_page
from core.tenancy.models import ApiKey, AuditEntry, Tenant, User

T = TypeVar("T")


async def list_tenants(
    session: AsyncSession, *, tenant_id: UUID | None = None, after: UUID | None = None, limit: int | None = None
) -> Sequence[Tenant]:
    """Returns all tenants, or the one of `tenant_id`."""
    query = select(Tenant)
    if tenant_id is not None:
        query = query.where(Tenant.id == tenant_id)
    return await _page_by_id(session, query, Tenant.id, after, limit)


async def list_users(
    session: AsyncSession, tenant_id: UUID, *, after: UUID | None = None, limit: int | None = None
) -> Sequence[User]:
    """Returns the users of a tenant."""
    return await _page_by_id(session, select(User).where(User.tenant_id == tenant_id), User.id, after, limit)


async def list_keys(
    session: AsyncSession, user: User, *, after: UUID | None = None, limit: int | None = None
) -> Sequence[ApiKey]:
    """Returns the keys of a user, including revoked and expired ones."""
    query = select(ApiKey).where(ApiKey.tenant_id == user.tenant_id, ApiKey.user_id == user.id)
    return await _page_by_id(session, query, ApiKey.id, after, limit)


async def _page_by_id(
    session: AsyncSession, query: Select[T], id_column: Any, after: UUID | None, limit: int | None
) -> Sequence[T]:
    if after is not None:
        query = query.where(id_column > after)
    return (await session.scalars(query.order_by(id_column).limit(limit))).all()


async def list_audit(
    session: AsyncSession,
    *,
    tenant_id: UUID | None,
    before: UUID | None,
    limit: int,
    action: str = "",
    actor: str = "",
) -> KeysetPage:
    """Returns audit entries, newest first; of every tenant and the platform when `tenant_id` is None.

    `action` and `actor` filter by prefix.
    """
    sift: list[Sift] = []
    if action:
        sift.append(lambda columns: columns.action.startswith(action, autoescape=True))
    if actor:
        sift.append(lambda columns: columns.actor.startswith(actor, autoescape=True))
    fixed = {} if tenant_id is None else {"tenant_id": tenant_id}
    return await read_page(session, KeysetQuery(AuditEntry, fixed, sift, before=before or HIGHEST), limit=limit)
