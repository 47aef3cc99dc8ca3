"""Users of a tenant."""

from uuid import UUID

from sqlalchemy import ColumnElement, func, select

from api.schemas.accounts.users import NewUser, UserDetail, UserItem, UserWithKeys
from api.schemas.pages import Page, one_more, page
from api.services.accounts.keys import key_page, offered_models
from api.services.accounts.limits import limits_in_force
from api.services.accounts.lookups import reach_tenant, reach_user, require_grantable
from api.services.context import ServiceContext, publish_after_commit
from core.clock import now_ms, to_datetime
from core.tenancy import accounts, lists
from core.tenancy.models import ApiKey, User
from core.tenancy.principal import Scope


async def create_user(context: ServiceContext, tenant: UUID | str, new: NewUser) -> UserItem:
    """Creates a user. Raises NotFound for the tenant, Conflict for a name in use."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        user = await accounts.create_user(session, context.actor, found.id, external_id=new.external_id)
        return UserItem.of(user)


async def list_users(
    context: ServiceContext, tenant: UUID | str, *, after: UUID | None = None, size: int | None = None
) -> Page[UserItem]:
    """Users of a tenant, oldest first; all without a `size`. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        rows = await lists.list_users(session, found.id, after=after, limit=one_more(size))
    return page(rows, size, UserItem.of)


async def list_users_with_keys(
    context: ServiceContext, tenant: UUID, *, name: str, after: UUID | None, size: int
) -> Page[UserWithKeys]:
    """Users of a tenant, oldest first, or the one of this exact name. Raises NotFound."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        if name:
            query = select(User).where(User.tenant_id == found.id, User.external_id == name)
            rows = (await session.scalars(query)).all()
        else:
            rows = await lists.list_users(session, found.id, after=after, limit=size + 1)
        counted = select(ApiKey.user_id, func.count()).where(
            ApiKey.tenant_id == found.id, ApiKey.user_id.in_([row.id for row in rows]), _is_active()
        )
        counts = {user_id: int(count) for user_id, count in await session.execute(counted.group_by(ApiKey.user_id))}
    return page(rows, size, lambda row: UserWithKeys.completed(row, active_keys=counts.get(row.id, 0)))


async def find_user(context: ServiceContext, user_id: UUID) -> UserItem:
    """A user. Raises NotFound."""
    async with context.transaction() as session:
        return UserItem.of(await reach_user(context, session, user_id))


async def set_disabled(context: ServiceContext, user_id: UUID, *, disabled: bool) -> UserItem:
    """Disables a user, so that its requests are refused at once, or enables it again.

    Raises NotFound, Invalid, and Forbidden for a user with a key that the caller may not end, as an owner's.
    """
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        user = await reach_user(context, session, user_id)
        await accounts.set_disabled(session, context.actor, user, disabled=disabled)
        query = select(ApiKey.scopes).where(ApiKey.tenant_id == user.tenant_id, ApiKey.user_id == user.id, _is_active())
        for scopes in await session.scalars(query):  # under the user's lock: no key is made meanwhile
            require_grantable(context, scopes)
        publish_after_commit(session, user.tenant_id)
        return UserItem.of(user)


async def describe_user(context: ServiceContext, user_id: UUID, *, after: UUID | None, size: int) -> UserDetail:
    """A user with a page of its keys and its limits. Raises NotFound."""
    async with context.transaction() as session:
        user = await reach_user(context, session, user_id)
        return UserDetail(
            user=UserItem.of(user),
            keys=await key_page(session, user, after=after, size=size),
            limits=await limits_in_force(context, session, user.tenant_id, user.id),
            models=await offered_models(context, session),
        )


def _is_active() -> ColumnElement[bool]:
    """Whether a key has neither been revoked nor expired."""
    return ApiKey.revoked_at.is_(None) & (ApiKey.expires_at.is_(None) | (ApiKey.expires_at > to_datetime(now_ms())))
