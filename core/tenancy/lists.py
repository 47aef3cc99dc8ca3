"""Reading tenants, users, keys and the audit log, a page at a time.

Tenants, users and keys come oldest first, the audit log newest first; a cursor is the id of the last row seen, so a
page costs the same wherever it lies; of the audit log whatever is asked of it, too (`core.postgres.index_pages`).
`tenant_id` None means every tenant, and is the caller's to decide.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.postgres.index_pages import HIGHEST, KeysetPage, KeysetQuery, Sift, read_page
from core.tenancy.models import ApiKey, AuditEntry, Tenant, User


async def list_tenants(
    session: AsyncSession, *, tenant_id: UUID | None = None, after: UUID | None = None, limit: int | None = None
) -> Sequence[Tenant]:
    """All tenants, or the one of `tenant_id`."""
    query = select(Tenant).order_by(Tenant.id).limit(limit)
    if tenant_id is not None:
        query = query.where(Tenant.id == tenant_id)
    if after is not None:
        query = query.where(Tenant.id > after)
    return (await session.scalars(query)).all()


async def list_users(
    session: AsyncSession, tenant_id: UUID, *, after: UUID | None = None, limit: int | None = None
) -> Sequence[User]:
    """The users of a tenant."""
    query = select(User).where(User.tenant_id == tenant_id).order_by(User.id).limit(limit)
    if after is not None:
        query = query.where(User.id > after)
    return (await session.scalars(query)).all()


async def list_keys(
    session: AsyncSession, user: User, *, after: UUID | None = None, limit: int | None = None
) -> Sequence[ApiKey]:
    """The keys of a user, ended ones too."""
    query = select(ApiKey).where(ApiKey.tenant_id == user.tenant_id, ApiKey.user_id == user.id)
    query = query.order_by(ApiKey.id).limit(limit)
    if after is not None:
        query = query.where(ApiKey.id > after)
    return (await session.scalars(query)).all()


async def list_audit(
    session: AsyncSession,
    *,
    tenant_id: UUID | None,
    before: UUID | None,
    limit: int,
    action: str = "",
    actor: str = "",
) -> KeysetPage:
    """Changes (rows of AuditEntry), newest first; every tenant's and the platform's own when `tenant_id` is None.

    `action` and `actor` are the beginnings of theirs.
    """
    sift: list[Sift] = []
    if action:
        sift.append(lambda columns: columns.action.startswith(action, autoescape=True))
    if actor:
        sift.append(lambda columns: columns.actor.startswith(actor, autoescape=True))
    fixed = {} if tenant_id is None else {"tenant_id": tenant_id}
    return await read_page(session, KeysetQuery(AuditEntry, fixed, sift, before=before or HIGHEST), limit=limit)
