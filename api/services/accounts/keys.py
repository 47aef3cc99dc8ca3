"""API keys: created for a user, shown once, rotated with an overlap, revoked at once.

A key created or rotated with another key has at most that key's rights (`core.tenancy.derivation`). Here a tenant's
admin is also kept from the operator's keys.
"""

from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.accounts.keys import KeyItem, KeyMade, NewKey, Rotation
from api.schemas.pages import Page, one_more, page
from api.services.accounts.lookups import reach_user, require_grantable
from api.services.context import ServiceContext, publish_after_commit
from core.errors import NotFound
from core.tenancy import accounts
from core.tenancy.activity_log import last_uses
from core.tenancy.lists import list_keys as list_rows
from core.tenancy.models import ApiKey, Member, User
from core.tenancy.principal import Forbidden, Scope


async def create_key(context: ServiceContext, user_id: UUID, new: NewKey) -> KeyMade:
    """Creates a key. Raises NotFound, UnknownModel for a model without a price, Invalid for an expiry in the past."""
    from metering.pricing.price_list import require_priced  # noqa: PLC0415 - lists need no prices

    context.require(Scope.TENANT_ADMIN)
    require_grantable(context, new.scopes)
    async with context.transaction() as session:
        user = await reach_user(context, session, user_id)
        await require_priced(session, new.models or ())
        made = await accounts.create_key(
            session,
            context.actor,
            user,
            name=new.name,
            scopes=new.scopes,
            models=new.models,
            expires_at=new.expires_at,
            live=context.settings.is_production,
        )
        publish_after_commit(session, user.tenant_id)
    return KeyMade.with_secret(made)


async def list_keys(
    context: ServiceContext, user_id: UUID, *, after: UUID | None = None, size: int | None = None
) -> Page[KeyItem]:
    """Keys of a user, oldest first, including ended ones; all without a `size`. Raises NotFound."""
    async with context.transaction() as session:
        user = await reach_user(context, session, user_id)
        return await key_page(session, user, after=after, size=size)


async def find_key(context: ServiceContext, key_id: UUID) -> KeyItem:
    """A key. Raises NotFound."""
    context.require(Scope.TENANT_ADMIN)
    query = select(ApiKey).where(ApiKey.id == key_id)
    if context.tenant_id is not None:
        query = query.where(ApiKey.tenant_id == context.tenant_id)
    async with context.transaction() as session:
        key = await session.scalar(query)
    if key is None:
        raise NotFound("no such key")
    return KeyItem.of(key)


async def revoke_key(context: ServiceContext, key_id: UUID, *, descendants: bool) -> list[KeyItem]:
    """Ends a key, and with `descendants` every key derived from it; the keys that ended, or the key if none did.

    Idempotent. Raises NotFound, and Forbidden, also for a member's key unless the caller manages members, and when one
    of the derived keys has permissions that the caller may not grant.
    """
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        key = await accounts.find_key(session, key_id, tenant_id=context.tenant_id)
        require_grantable(context, key.scopes)
        await _require_membership_right(context, session, key)
        if descendants:
            ended = await accounts.revoke_tree(
                session, context.actor, key, check=lambda derived: require_grantable(context, derived.scopes)
            )
        else:
            await accounts.revoke_key(session, context.actor, key)
            ended = [key]
        for each in (key, *ended):
            publish_after_commit(session, each.tenant_id)
    return [KeyItem.of(each) for each in ended or [key]]


async def rotate_key(context: ServiceContext, key_id: UUID, rotation: Rotation) -> KeyMade:
    """Creates a successor with the same rights; the old key ends after the overlap.

    Raises NotFound, Forbidden, Invalid for an ended key, BeyondMaker.
    """
    async with context.transaction(Scope.TENANT_ADMIN) as session:
        key = await accounts.find_key(session, key_id, tenant_id=context.tenant_id)
        require_grantable(context, key.scopes)
        made = await accounts.rotate_key(
            session, context.actor, key, overlap_s=rotation.overlap_s, live=context.settings.is_production
        )
        publish_after_commit(session, key.tenant_id)
    return KeyMade.with_secret(made)


async def _require_membership_right(context: ServiceContext, session: AsyncSession, key: ApiKey) -> None:
    """Raises Forbidden for another member's key, unless the caller manages members: revoking it ends the membership."""
    principal = context.principal
    if principal is None or principal.may(Scope.TENANT_MEMBERS) or key.id == principal.key_id:
        return
    of_member = exists().where(Member.tenant_id == key.tenant_id, Member.key_id == key.id, Member.removed_at.is_(None))
    if await session.scalar(select(of_member)):
        raise Forbidden("This is a member's key. Only an owner of the account, or the operator, removes a member.")


async def key_page(session: AsyncSession, user: User, *, after: UUID | None, size: int | None) -> Page[KeyItem]:
    """A page of a user's keys."""
    keys = await list_rows(session, user, after=after, limit=one_more(size))
    used = await last_uses(session, keys)
    return page(keys, size, lambda key: KeyItem.completed(key, last_used_at=used.get(key.id)))


async def offered_models(context: ServiceContext, session: AsyncSession) -> list[str]:
    """Models that a new key may be restricted to: those with a price that the caller's key may use."""
    from metering.models import PriceRow  # noqa: PLC0415 - lists need no prices

    principal = context.principal
    priced = await session.scalars(select(PriceRow.model).distinct())
    return sorted(model for model in priced if principal is None or principal.allows_model(model))
