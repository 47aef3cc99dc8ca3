"""Whose usage a page shows: what the URL names, looked up within the visitor's reach. Raises NotFound beyond it."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import tenant_filter
from api.pages.reports.view import View
from core.errors import NotFound
from core.tenancy.accounts import find_tenant, find_user
from core.tenancy.models import ApiKey
from core.tenancy.principal import Principal


@dataclass(frozen=True, slots=True)
class About:
    """The tenant that a page is confined to (None: all of them), and names for what it is narrowed to.

    `user_id` is the user's who is asked for, or whose key is: a user's requests have an index, a key's have none.
    """

    tenant_id: UUID | None
    user_id: UUID | None
    named: list[tuple[str, str, str]]
    """(what, name, the field of the view that says so)."""


async def about(session: AsyncSession, principal: Principal, view: View) -> About:
    """Of a view. Another tenant's and nobody's ids are NotFound, in the same words."""
    reach = tenant_filter(principal)
    user_id, named = view.user_id, list[tuple[str, str, str]]()
    if view.tenant is not None:
        tenant = await find_tenant(session, view.tenant)
        if not principal.may_see(tenant.id):
            raise NotFound("no such tenant")
        reach = tenant.id
        named.append(("Tenant", f"{tenant.name} ({tenant.slug})", "tenant"))
    if view.user_id is not None:
        user = await find_user(session, view.user_id, tenant_id=reach)
        named.append(("User", user.external_id, "user_id"))
    if view.key_id is not None:
        key = await session.scalar(_key(view.key_id, reach))
        if key is None:
            raise NotFound("no such key")
        user_id = user_id or key.user_id
        named.append(("Key", f"{key.name} ({key.prefix}…)", "key_id"))
    if view.model is not None:
        named.append(("Model", view.model, "model"))
    return About(reach, user_id, named)


def _key(key_id: UUID, tenant_id: UUID | None) -> Select[ApiKey]:
    query = select(ApiKey).where(ApiKey.id == key_id)
    return query if tenant_id is None else query.where(ApiKey.tenant_id == tenant_id)
