"""Derived keys: a key has at most the rights of its parent key, the key it was created with.

The parent is the audit actor's key, so no way of creating a key can skip the rule; the command line has no key and no
limit. Only `platform:admin` may grant scopes it lacks, and create keys for other tenants; a tenant's admin who may chat
can create a key for any of its users, so it may grant `chat:as-user`, too. The parent's row is
share-locked until the new key is committed, so a revocation of its whole tree sees the new key or prevents it. A
rotation reveals the successor's secret, so a key may rotate only keys it could have created.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.tenancy.models import ApiKey, Member
from core.tenancy.principal import Forbidden, Scope, Unauthenticated, includes


class ExceedsParentKey(Forbidden):
    """The new key would have rights that its parent key lacks."""


async def lock_parent_key(session: AsyncSession, key_id: UUID, *, now: datetime) -> ApiKey:
    """Returns the parent key, share-locked until this transaction ends. Raises Unauthenticated when it has ended."""
    query = select(ApiKey).where(ApiKey.id == key_id).with_for_update(read=True)
    parent = await session.scalar(query.execution_options(populate_existing=True))
    if parent is None or parent.revoked_at is not None or (parent.expires_at is not None and parent.expires_at <= now):
        raise Unauthenticated
    return parent


def require_within(parent: ApiKey, tenant_id: UUID, scopes: Iterable[str]) -> None:
    """Raises ExceedsParentKey for a tenant or scope that the parent key may not grant."""
    if Scope.PLATFORM_ADMIN in parent.scopes:
        return
    if tenant_id != parent.tenant_id:
        raise ExceedsParentKey("This key can create keys in its own tenant only.")
    missing = sorted(set(scopes) - grantable_scopes(parent.scopes))
    if missing:
        raise ExceedsParentKey(f"This key lacks permissions that the new key would have: {', '.join(missing)}.")


def grantable_scopes(scopes: Iterable[str]) -> set[str]:
    """Returns the scopes that a key with these may grant, the operator's aside."""
    held = set(scopes)
    held |= {scope.value for scope in Scope if includes(held, scope)}
    return held | {Scope.CHAT_AS_USER.value} if {Scope.CHAT, Scope.TENANT_ADMIN} <= held else held


def inherited_models(parent: ApiKey, models: list[str] | None) -> list[str] | None:
    """Returns a new key's models, by default its parent's. Raises ExceedsParentKey for a model the parent lacks."""
    if models is None or parent.models is None:
        return parent.models if models is None else models
    missing = sorted(set(models) - set(parent.models))
    if missing:
        raise ExceedsParentKey(f"This key may not use models that the new key would have: {', '.join(missing)}.")
    return models


def inherited_expiry(parent: ApiKey, expires_at: datetime | None) -> datetime | None:
    """Returns a new key's expiry, by default its parent's. Raises ExceedsParentKey for a later one."""
    if expires_at is None or parent.expires_at is None:
        return parent.expires_at if expires_at is None else expires_at
    if expires_at > parent.expires_at:
        raise ExceedsParentKey(f"The new key would outlive this one, which expires at {parent.expires_at.isoformat()}.")
    return expires_at


def require_rotatable(parent: ApiKey, key: ApiKey) -> None:
    """Raises ExceedsParentKey unless the parent could have created this key with exactly its rights."""
    require_within(parent, key.tenant_id, key.scopes)
    if inherited_models(parent, key.models) != key.models:
        raise ExceedsParentKey("This key may not use every model of the key to rotate.")
    if inherited_expiry(parent, key.expires_at) != key.expires_at:
        raise ExceedsParentKey("The key to rotate would outlive this one.")


async def find_tree(session: AsyncSession, root: ApiKey) -> list[ApiKey]:
    """Returns the active keys derived from `root`, locked for update, oldest first.

    Derived, directly or indirectly: created with it, or its successor in a rotation. Predecessors of the root are the
    same key with older secrets, so keys created with them belong to the tree too. An invitation is no derivation:
    members' keys, and what was created with them, are not of the tree of whoever invited.
    """
    older = select(ApiKey.id, ApiKey.predecessor_key_id).where(ApiKey.id == root.id).cte("older", recursive=True)
    older = older.union(
        select(ApiKey.id, ApiKey.predecessor_key_id).join(older, ApiKey.id == older.c.predecessor_key_id)
    )
    tree = select(older.c.id).cte("tree", recursive=True)
    is_members = exists().where(Member.tenant_id == ApiKey.tenant_id, Member.key_id == ApiKey.id)
    derived = select(ApiKey.id).join(
        tree, or_(ApiKey.parent_key_id == tree.c.id, ApiKey.predecessor_key_id == tree.c.id)
    )
    tree = tree.union(derived.where(~is_members))
    query = select(ApiKey).where(ApiKey.id.in_(select(tree.c.id)), ApiKey.id != root.id, ApiKey.revoked_at.is_(None))
    locked = query.order_by(ApiKey.id).with_for_update().execution_options(populate_existing=True)
    return list(await session.scalars(locked))
