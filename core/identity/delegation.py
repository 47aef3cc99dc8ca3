"""What a key may do for one of its tenant's users, for credentials that name a key and a user.

A short-lived token or a JWT acts with at most the rights of its key. A cached answer is safe: Postgres checks the key,
its owner and the user when it opens a metered request, and unmetered routes read again. Postgres down: `Unavailable`.
"""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from core.clock import to_ms
from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.tenancy.principal import Forbidden, Principal, Scope, Unauthenticated, UserDisabled

USER_SCOPES = frozenset({Scope.CHAT, Scope.USAGE_READ})
"""Scopes of a user that a key acts for. Administration is never among them."""

_READ = """
SELECT a.tenant_id, a.key_id, a.user_id, k.user_id AS owner_id, k.scopes, k.models, k.expires_at, k.prefix,
       k.revoked_at IS NOT NULL AS is_revoked,
       u.disabled_at IS NOT NULL OR u.erased_at IS NOT NULL
       OR o.disabled_at IS NOT NULL OR o.erased_at IS NOT NULL AS is_disabled
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS a (tenant_id, key_id, user_id)
  JOIN api_keys k ON k.tenant_id = a.tenant_id AND k.id = a.key_id
  JOIN users u ON u.tenant_id = a.tenant_id AND u.id = a.user_id
  JOIN users o ON o.tenant_id = k.tenant_id AND o.id = k.user_id
"""


@dataclass(frozen=True, slots=True)
class _Asked:
    tenant_id: UUID
    key_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class _Answer:
    """`is_disabled`: the user, or the owner of the key."""

    key: Principal
    is_disabled: bool


class Delegations:
    """Reads. One per process."""

    def __init__(self, database: Database) -> None:
        self._reads: BatchedReads[_Asked, _Answer] = BatchedReads("delegations", database, _fetch)

    async def of(self, tenant_id: UUID, key_id: UUID, user_id: UUID) -> Principal:
        """Returns the principal of the user by the key. The expiry is the key's; the caller checks it.

        Raises Unauthenticated for a key that was revoked, Forbidden for one that does not act for users, UserDisabled,
        Unavailable, Overloaded.
        """
        found = await self._reads.get(_Asked(tenant_id, key_id, user_id))
        if found is None:
            raise Unauthenticated
        if found.key.expires_at_ms == 0:
            raise Unauthenticated(tenant_id=tenant_id)
        if found.is_disabled:
            raise UserDisabled(tenant_id)
        return act_for(found.key, user_id)


def act_for(key: Principal, user_id: UUID) -> Principal:
    """Returns the principal of a user that the key acts for. Raises Forbidden without the scope `chat:as-user`."""
    if Scope.CHAT_AS_USER not in key.scopes:
        raise Forbidden(f"This key lacks the permission {Scope.CHAT_AS_USER.value}: it acts for its own user only.")
    scopes = (key.scopes | {Scope.CHAT}) & USER_SCOPES
    return replace(key, user_id=user_id, scopes=scopes, is_delegated=True)


async def _fetch(connection: Connection, asked: list[_Asked]) -> dict[_Asked, _Answer]:
    columns = ([one.tenant_id for one in asked], [one.key_id for one in asked], [one.user_id for one in asked])
    rows = await connection.fetch(_READ, *columns)
    return {
        _Asked(row["tenant_id"], row["key_id"], row["user_id"]): _Answer(_key(row), row["is_disabled"]) for row in rows
    }


def _key(row: Any) -> Principal:
    expires_at_ms = None if row["expires_at"] is None else to_ms(row["expires_at"])
    return Principal(
        tenant_id=row["tenant_id"],
        user_id=row["owner_id"],
        key_id=row["key_id"],
        scopes=frozenset(row["scopes"]),
        models=None if row["models"] is None else frozenset(row["models"]),
        expires_at_ms=0 if row["is_revoked"] else expires_at_ms,
        key_prefix=row["prefix"],
    )
