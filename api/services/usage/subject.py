"""Whose usage a list or report is of: what the query names, looked up within the caller's reach."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.usage.counts import UsageFilter
from api.services.context import ServiceContext
from core.errors import NotFound
from core.tenancy.accounts import find_tenant, find_user
from core.tenancy.models import ApiKey


@dataclass(frozen=True, slots=True)
class Subject:
    """The tenant (None: every tenant) and the user that rows are selected by, and names of what the query names.

    With a key, `user_id` is the key's user: a user's requests have an index, a key's have none.
    """

    tenant_id: UUID | None
    user_id: UUID | None
    names: dict[str, str]
    """By the field of the query."""


async def find_subject(context: ServiceContext, session: AsyncSession, wanted: UsageFilter) -> Subject:
    """The subject of a query. Raises NotFound, in the same words for another tenant's ids and unknown ones."""
    tenant_id, user_id, names = context.tenant_id, wanted.user_id, dict[str, str]()
    if wanted.tenant is not None:
        tenant = await find_tenant(session, wanted.tenant)
        context.require_tenant(tenant.id)
        tenant_id, names["tenant"] = tenant.id, f"{tenant.name} ({tenant.slug})"
    if user_id is not None:
        user = await find_user(session, user_id, tenant_id=tenant_id)
        tenant_id, names["user_id"] = user.tenant_id, user.external_id
    if wanted.key_id is not None:
        key = await session.scalar(select(ApiKey).where(ApiKey.id == wanted.key_id))
        if key is None or tenant_id not in (None, key.tenant_id) or user_id not in (None, key.user_id):
            raise NotFound("no such key")
        tenant_id, user_id, names["key_id"] = key.tenant_id, key.user_id, f"{key.name} ({key.prefix}…)"
    if wanted.model is not None:
        names["model"] = wanted.model
    if wanted.tag is not None:
        names["tag"] = "=".join(wanted.tag)
    return Subject(tenant_id, user_id, names)
