"""Keys made with keys: a derived key has at most the rights of the key that made it.

A key's maker is the key that the audit log names for it, so no way to make a key can forget the rule: a command
line has no key, and makes what the operator wants. Only `platform:admin` may hand out scopes that it does not have
itself, and to other tenants; the models and the expiry of the maker bound every key. The maker's row is share-locked
until the new key is committed, so that a revocation of the maker's whole tree either sees the new key, or stops it.

A rotation hands the secret of the successor to whoever rotates, so a key rotates only what it could have made.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.tenancy.models import ApiKey
from core.tenancy.principal import Forbidden, Scope, Unauthenticated


class BeyondMaker(Forbidden):
    """The key that asks has not the rights itself that it would hand on."""


async def lock_maker(session: AsyncSession, key_id: UUID, *, now: datetime) -> ApiKey:
    """The maker, good until this transaction ends. Raises Unauthenticated when it has ended meanwhile."""
    query = select(ApiKey).where(ApiKey.id == key_id).with_for_update(read=True)
    maker = await session.scalar(query.execution_options(populate_existing=True))
    if maker is None or maker.revoked_at is not None or (maker.expires_at is not None and maker.expires_at <= now):
        raise Unauthenticated
    return maker


def require_within(maker: ApiKey, tenant_id: UUID, scopes: Iterable[str]) -> None:
    """Raises BeyondMaker for a tenant or a scope that is not the maker's to give."""
    if Scope.PLATFORM_ADMIN in maker.scopes:
        return
    if tenant_id != maker.tenant_id:
        raise BeyondMaker("this key makes keys of its own tenant only")
    missing = sorted(set(scopes) - set(maker.scopes))
    if missing:
        raise BeyondMaker(f"this key lacks a scope that the new key would have: {', '.join(missing)}")


def inherited_models(maker: ApiKey, models: list[str] | None) -> list[str] | None:
    """The models of a new key: the maker's when none are named. Raises BeyondMaker for one that the maker lacks."""
    if models is None or maker.models is None:
        return maker.models if models is None else models
    missing = sorted(set(models) - set(maker.models))
    if missing:
        raise BeyondMaker(f"this key may not use a model that the new key would have: {', '.join(missing)}")
    return models


def inherited_expiry(maker: ApiKey, expires_at: datetime | None) -> datetime | None:
    """The end of a new key: the maker's when none is named. Raises BeyondMaker for one after the maker's."""
    if expires_at is None or maker.expires_at is None:
        return maker.expires_at if expires_at is None else expires_at
    if expires_at > maker.expires_at:
        raise BeyondMaker(f"the new key would outlive this one, which ends at {maker.expires_at.isoformat()}")
    return expires_at


def require_rotatable(maker: ApiKey, key: ApiKey) -> None:
    """Raises BeyondMaker unless the maker could have made this very key: its successor inherits nothing instead."""
    require_within(maker, key.tenant_id, key.scopes)
    if inherited_models(maker, key.models) != key.models:
        raise BeyondMaker("this key may not use every model of the key that would be rotated")
    if inherited_expiry(maker, key.expires_at) != key.expires_at:
        raise BeyondMaker("the key that would be rotated does not end with this one")


async def find_tree(session: AsyncSession, root: ApiKey) -> list[ApiKey]:
    """Every key derived from `root` that is not revoked, locked for a change, oldest first.

    Derived is what was made with it, or with what was made with it, and what replaced one of those in a rotation. The
    predecessors of the root are the same key under older secrets: they, and what was made with them, belong to it.
    """
    older = select(ApiKey.id, ApiKey.predecessor_key_id).where(ApiKey.id == root.id).cte("older", recursive=True)
    older = older.union(
        select(ApiKey.id, ApiKey.predecessor_key_id).join(older, ApiKey.id == older.c.predecessor_key_id)
    )
    tree = select(older.c.id).cte("tree", recursive=True)
    tree = tree.union(
        select(ApiKey.id).join(tree, or_(ApiKey.parent_key_id == tree.c.id, ApiKey.predecessor_key_id == tree.c.id))
    )
    query = select(ApiKey).where(ApiKey.id.in_(select(tree.c.id)), ApiKey.id != root.id, ApiKey.revoked_at.is_(None))
    locked = query.order_by(ApiKey.id).with_for_update().execution_options(populate_existing=True)
    return list(await session.scalars(locked))
