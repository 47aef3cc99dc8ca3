"""Creation and revocation of tenants, users and keys, each with its audit entry in the caller's transaction.

Another tenant's id raises the same NotFound as an unknown id.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, or_, select, update
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
    lock_parent_key,
    require_rotatable,
    require_within,
)
from core.tenancy.keys import NewKey, generate_key
from core.tenancy.models import ApiKey, Invitation, Issuer, Member, Tenant, User
from core.tenancy.principal import Scope

DEFAULT_SCOPES = (Scope.CHAT, Scope.USAGE_READ)


async def create_tenant(session: AsyncSession, actor: Actor, *, slug: str, name: str) -> Tenant:
    """Creates a tenant. Raises Conflict when the slug is taken."""
    tenant: Tenant | None = await session.scalar(
        insert(Tenant).values(id=uuid7(), slug=slug, name=name).on_conflict_do_nothing().returning(Tenant)
    )
    if tenant is None:
        raise Conflict("a tenant with this slug already exists")
    after = {"slug": slug, "name": name}
    record(session, actor, "tenant.create", tenant_id=tenant.id, target=f"tenant:{tenant.id}", after=after)
    return tenant


async def find_tenant(session: AsyncSession, tenant: UUID | str) -> Tenant:
    """Returns a tenant by id or slug. Raises NotFound."""
    where = Tenant.id == tenant if isinstance(tenant, UUID) else Tenant.slug == tenant
    found = await session.scalar(select(Tenant).where(where))
    if found is None:
        raise NotFound("no such tenant")
    return found


async def set_new_users(
    session: AsyncSession, actor: Actor, tenant_id: UUID, *, makes_users: bool, new_users_per_minute: int
) -> None:
    """Sets whether a request that names an unknown user creates it, and how many users a minute at most."""
    query = select(Tenant).where(Tenant.id == tenant_id).with_for_update(key_share=True)
    tenant = (await session.scalars(query.execution_options(populate_existing=True))).one()
    before = {"makes_users": tenant.makes_users, "new_users_per_minute": tenant.new_users_per_minute}
    after = {"makes_users": makes_users, "new_users_per_minute": new_users_per_minute}
    if before == after:
        return
    tenant.makes_users, tenant.new_users_per_minute = makes_users, new_users_per_minute
    target = f"tenant:{tenant_id}"
    record(session, actor, "tenant.new_users", tenant_id=tenant_id, target=target, before=before, after=after)
    await session.flush()


async def create_user(session: AsyncSession, actor: Actor, tenant_id: UUID, *, external_id: str) -> User:
    """Creates a user of the tenant. Raises NotFound for the tenant, Conflict when `external_id` is taken in it."""
    await find_tenant(session, tenant_id)
    made = insert(User).values(tenant_id=tenant_id, id=uuid7(), external_id=external_id).on_conflict_do_nothing()
    user: User | None = await session.scalar(made.returning(User))
    if user is None:
        raise Conflict("the tenant already has a user with this external_id")
    after = {"external_id": external_id}
    record(session, actor, "user.create", tenant_id=tenant_id, target=f"user:{user.id}", after=after)
    return user


async def find_user(session: AsyncSession, user_id: UUID, *, tenant_id: UUID | None) -> User:
    """Returns a user of `tenant_id` (None: any tenant) by id. Raises NotFound."""
    query = select(User).where(User.id == user_id)
    if tenant_id is not None:
        query = query.where(User.tenant_id == tenant_id)
    found = await session.scalar(query)
    if found is None:
        raise NotFound("no such user")
    return found


async def set_disabled(session: AsyncSession, actor: Actor, user: User, *, disabled: bool) -> None:
    """Disables a user, or enables it again. Idempotent. Raises Invalid for an erased one, which stays disabled.

    Once this is committed, no request opens for a disabled user, whatever key it came with.
    """
    locked = select(User).where(User.tenant_id == user.tenant_id, User.id == user.id).with_for_update()
    found = (await session.scalars(locked.execution_options(populate_existing=True))).one()
    if found.erased_at is not None:
        raise Invalid("this user was erased")
    if (found.disabled_at is not None) == disabled:
        return
    found.disabled_at = await session.scalar(select(func.clock_timestamp())) if disabled else None
    await session.flush()
    action = "user.disable" if disabled else "user.enable"
    record(session, actor, action, tenant_id=found.tenant_id, target=f"user:{found.id}")


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
    """Creates a key of the user and returns it with its plaintext, which is not stored.

    Created with a key (`actor.key_id`), it has at most that key's rights and inherits what is not given
    (`core.tenancy.derivation`). Raises Invalid for an expiry in the past or an erased user, ExceedsParentKey, and
    Unauthenticated when the parent key has ended.
    """
    now = await _now(session)
    if expires_at is not None and expires_at <= now:
        raise Invalid("expires_at must be in the future")
    erased_at = select(User.erased_at).where(User.tenant_id == user.tenant_id, User.id == user.id)
    # The lock waits for an erasure in progress.
    if await session.scalar(erased_at.with_for_update(read=True, key_share=True)) is not None:
        raise Invalid("this user was erased")
    if actor.key_id is not None:
        parent = await lock_parent_key(session, actor.key_id, now=now)
        require_within(parent, user.tenant_id, scopes)
        models, expires_at = inherited_models(parent, models), inherited_expiry(parent, expires_at)
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
    _record(session, actor, "key.create", key)
    await session.flush()
    await session.refresh(key)
    return key, secret


async def _now(session: AsyncSession) -> datetime:
    """Returns Postgres's time plus the test clock's offset: keys expire by the same time as grants."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now + timedelta(milliseconds=offset_ms())


async def find_key(session: AsyncSession, key_id: UUID, *, tenant_id: UUID | None) -> ApiKey:
    """Returns a key of `tenant_id` (None: any tenant) by id, locked for update. Raises NotFound."""
    query = select(ApiKey).where(ApiKey.id == key_id).with_for_update()
    if tenant_id is not None:
        query = query.where(ApiKey.tenant_id == tenant_id)
    found = await session.scalar(query)
    if found is None:
        raise NotFound("no such key")
    return found


async def revoke_key(session: AsyncSession, actor: Actor, key: ApiKey) -> None:
    """Revokes the key and the invitations made with it; a member whose key it is, is one no more. Idempotent.

    Once this is committed, no request opens with the key: the open share-locks the key's row, so it either committed
    before or sees the revocation.
    """
    if key.revoked_at is not None:
        return
    before = describe_key(key)
    key.revoked_at = await session.scalar(select(func.clock_timestamp()))
    await session.flush()
    of_key = update(Member).where(Member.tenant_id == key.tenant_id, Member.key_id == key.id)
    await session.execute(of_key.where(Member.removed_at.is_(None)).values(removed_at=key.revoked_at))
    invited = update(Invitation).where(Invitation.tenant_id == key.tenant_id, Invitation.actor == f"key:{key.id}")
    pending = invited.where(Invitation.accepted_at.is_(None), Invitation.revoked_at.is_(None))
    await session.execute(pending.values(revoked_at=key.revoked_at))
    _record(session, actor, "key.revoke", key, before)


async def revoke_tree(
    session: AsyncSession, actor: Actor, key: ApiKey, *, check: Callable[[ApiKey], None] | None = None
) -> list[ApiKey]:
    """Revokes the key and every key derived from it; returns the keys revoked, the root first.

    `check`: raises for a derived key that the caller may not end; the key's rights may have been lessened since.
    It searches until no derived key is left. Creating a key share-locks the parent, so a key created meanwhile is found
    by the next search, and none is created with a key revoked here.
    """
    ended = [] if key.revoked_at is not None else [key]
    await revoke_key(session, actor, key)
    while found := await find_tree(session, key):
        for derived in found:
            if check is not None:
                check(derived)
            await revoke_key(session, actor, derived)
        ended += found
    return ended


async def rotate_key(
    session: AsyncSession, actor: Actor, key: ApiKey, *, overlap_s: int, live: bool
) -> tuple[ApiKey, NewKey]:
    """Creates a successor with the same name, scopes, models and expiry.

    The old key ends after `overlap_s` seconds, or at its own expiry if that is sooner. Raises Invalid when the key has
    ended or is a member's or an issuer's, which has no secret to replace, and ExceedsParentKey when the actor's key
    could not have created it.
    """
    of_others = (exists().where(table.tenant_id == key.tenant_id, table.key_id == key.id) for table in (Member, Issuer))
    if await session.scalar(select(or_(*of_others))):
        raise Invalid("this key belongs to a member or an issuer, and has no secret to rotate")
    now = await _now(session)
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise Invalid("a revoked or expired key cannot be rotated")
    if actor.key_id is not None:
        require_rotatable(await lock_parent_key(session, actor.key_id, now=now), key)
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
    _record(session, actor, "key.rotate", key, before, successor=str(made[0].id))
    return made


def _record(
    session: AsyncSession, actor: Actor, action: str, key: ApiKey, before: dict[str, Any] | None = None, **more: str
) -> None:
    after = describe_key(key) | more
    record(session, actor, action, tenant_id=key.tenant_id, target=f"key:{key.id}", before=before, after=after)


def describe_key(key: ApiKey) -> dict[str, Any]:
    """Returns a key as the audit log shows it, without credentials."""
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
