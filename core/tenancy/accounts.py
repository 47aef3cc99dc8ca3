"""Making and ending tenants, users and keys. Each call runs in the caller's transaction and writes its audit entry.

Ids of another tenant raise NotFound with the same words as ids that do not exist.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import offset_ms
from core.errors import Conflict, Invalid, NotFound
from core.ids import uuid7
from core.tenancy.audit import Actor, record
from core.tenancy.derivation import (
    find_tree,
    inherited_expiry,
    inherited_models,
    lock_maker,
    require_rotatable,
    require_within,
)
from core.tenancy.keys import NewKey, generate_key
from core.tenancy.models import ApiKey, Tenant, User
from core.tenancy.principal import Scope

DEFAULT_SCOPES = (Scope.CHAT, Scope.USAGE_READ)


async def create_tenant(session: AsyncSession, actor: Actor, *, slug: str, name: str) -> Tenant:
    """A new tenant. Raises Conflict when the slug is taken."""
    tenant_id = uuid7()
    made = await session.scalar(
        insert(Tenant).values(id=tenant_id, slug=slug, name=name).on_conflict_do_nothing().returning(Tenant.id)
    )
    if made is None:
        raise Conflict("a tenant with this slug exists")
    record(
        session,
        actor,
        "tenant.create",
        tenant_id=tenant_id,
        target=f"tenant:{tenant_id}",
        after={"slug": slug, "name": name},
    )
    return await session.get_one(Tenant, tenant_id)


async def find_tenant(session: AsyncSession, tenant: UUID | str) -> Tenant:
    """By id, or by slug. Raises NotFound."""
    where = Tenant.id == tenant if isinstance(tenant, UUID) else Tenant.slug == tenant
    found = await session.scalar(select(Tenant).where(where))
    if found is None:
        raise NotFound("no such tenant")
    return found


async def create_user(session: AsyncSession, actor: Actor, tenant_id: UUID, *, external_id: str) -> User:
    """A new user of the tenant. Raises NotFound for the tenant, Conflict when `external_id` is taken in it."""
    await find_tenant(session, tenant_id)
    user_id = uuid7()
    made = await session.scalar(
        insert(User)
        .values(tenant_id=tenant_id, id=user_id, external_id=external_id)
        .on_conflict_do_nothing()
        .returning(User.id)
    )
    if made is None:
        raise Conflict("the tenant has a user with this external_id")
    after = {"external_id": external_id}
    record(session, actor, "user.create", tenant_id=tenant_id, target=f"user:{user_id}", after=after)
    return await session.get_one(User, (tenant_id, user_id))


async def find_user(session: AsyncSession, user_id: UUID, *, tenant_id: UUID | None) -> User:
    """By id, within `tenant_id` unless that is None (any tenant). Raises NotFound."""
    query = select(User).where(User.id == user_id)
    if tenant_id is not None:
        query = query.where(User.tenant_id == tenant_id)
    found = await session.scalar(query)
    if found is None:
        raise NotFound("no such user")
    return found


async def create_key(
    session: AsyncSession,
    actor: Actor,
    user: User,
    *,
    name: str,
    scopes: list[Scope],
    models: list[str] | None,
    expires_at: datetime | None,
    live: bool,
) -> tuple[ApiKey, NewKey]:
    """A new key of the user; the second value has the plaintext, which is nowhere else.

    Made with a key (`actor.key_id`), it has at most that one's rights, and what is not named is inherited
    (`core.tenancy.derivation`). Raises Invalid when it would have ended already, BeyondMaker, and Unauthenticated when
    the maker has ended.
    """
    now = await _now(session)
    if expires_at is not None and expires_at <= now:
        raise Invalid("expires_at lies in the past")
    await _require_not_erased(session, user)
    if actor.key_id is not None:
        maker = await lock_maker(session, actor.key_id, now=now)
        require_within(maker, user.tenant_id, scopes)
        models, expires_at = inherited_models(maker, models), inherited_expiry(maker, expires_at)
    secret = generate_key(live=live)
    key = ApiKey(
        tenant_id=user.tenant_id,
        id=uuid7(),
        user_id=user.id,
        name=name,
        hash=secret.hash,
        prefix=secret.prefix,
        scopes=sorted({scope.value for scope in scopes}),
        models=None if models is None else sorted(set(models)),
        expires_at=expires_at,
        parent_key_id=actor.key_id,
    )
    session.add(key)
    record(session, actor, "key.create", tenant_id=user.tenant_id, target=f"key:{key.id}", after=describe_key(key))
    await session.flush()
    await session.refresh(key)
    return key, secret


async def _require_not_erased(session: AsyncSession, user: User) -> None:
    """Raises Invalid for a user that was erased, or is being erased: it waits for that one's transaction."""
    query = select(User.erased_at).where(User.tenant_id == user.tenant_id, User.id == user.id)
    if await session.scalar(query.with_for_update(read=True, key_share=True)) is not None:
        raise Invalid("this user was erased")


async def _now(session: AsyncSession) -> datetime:
    """Postgres's clock, and what a test clock is ahead of it: keys expire by the time of the grants."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now + timedelta(milliseconds=offset_ms())


async def find_key(session: AsyncSession, key_id: UUID, *, tenant_id: UUID | None) -> ApiKey:
    """By id, within `tenant_id` unless that is None (any tenant), locked for a change. Raises NotFound."""
    query = select(ApiKey).where(ApiKey.id == key_id).with_for_update()
    if tenant_id is not None:
        query = query.where(ApiKey.tenant_id == tenant_id)
    found = await session.scalar(query)
    if found is None:
        raise NotFound("no such key")
    return found


async def revoke_key(session: AsyncSession, actor: Actor, key: ApiKey) -> None:
    """Ends the key at once; a second time changes nothing.

    Once committed, no request opens with it: metering's open takes a share lock on the key's row, so it either
    committed before, or sees this.
    """
    if key.revoked_at is not None:
        return
    before = describe_key(key)
    key.revoked_at = await session.scalar(select(func.clock_timestamp()))
    await session.flush()
    record(
        session,
        actor,
        "key.revoke",
        tenant_id=key.tenant_id,
        target=f"key:{key.id}",
        before=before,
        after=describe_key(key),
    )


async def revoke_tree(session: AsyncSession, actor: Actor, key: ApiKey) -> list[ApiKey]:
    """Ends the key and every key derived from it, in this transaction; those that were ended by it, the root first.

    A key that was being made with one of them while this looked is found by the next look: whoever makes a key holds
    a share lock on its maker, so none is made with a key that is ended here.
    """
    ended = [] if key.revoked_at is not None else [key]
    await revoke_key(session, actor, key)
    while found := await find_tree(session, key):
        for derived in found:
            await revoke_key(session, actor, derived)
        ended += found
    return ended


async def rotate_key(
    session: AsyncSession, actor: Actor, key: ApiKey, *, overlap_s: int, live: bool
) -> tuple[ApiKey, NewKey]:
    """A successor with the same name, scopes, models and expiry.

    The old key ends after `overlap_s` seconds, or at its own expiry if that is sooner. Raises Invalid when the key is
    revoked or expired already, and BeyondMaker when the actor's key could not have made it.
    """
    now = await _now(session)
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise Invalid("a key that has ended cannot be rotated")
    if actor.key_id is not None:
        require_rotatable(await lock_maker(session, actor.key_id, now=now), key)
    user = await session.get_one(User, (key.tenant_id, key.user_id))
    made = await create_key(
        session,
        actor,
        user,
        name=key.name,
        scopes=[Scope(scope) for scope in key.scopes],
        models=key.models,
        expires_at=key.expires_at,
        live=live,
    )
    made[0].predecessor_key_id = key.id
    before = describe_key(key)
    if overlap_s == 0:
        key.revoked_at = now
    else:
        ends_at = now + timedelta(seconds=overlap_s)
        key.expires_at = ends_at if key.expires_at is None else min(key.expires_at, ends_at)
    await session.flush()
    record(
        session,
        actor,
        "key.rotate",
        tenant_id=key.tenant_id,
        target=f"key:{key.id}",
        before=before,
        after={**describe_key(key), "successor": str(made[0].id)},
    )
    return made


def describe_key(key: ApiKey) -> dict[str, Any]:
    """A key as the audit log shows it: everything but what could authenticate."""
    return {
        "user_id": str(key.user_id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "models": None if key.models is None else list(key.models),
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
        "parent_key_id": None if key.parent_key_id is None else str(key.parent_key_id),
    }
