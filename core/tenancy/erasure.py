"""Export and erasure of a user's personal data.

DPDP and GDPR require the person erased, tax law the accounts kept. So a user's row keeps its id, which usage and bills
refer to, and loses its names and addresses, also in the append-only audit log, where a database function changes the
entries of erased users only. Tags of its requests go, but for those that usage is added up by. Keys and sessions end in
the same transaction.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.tenancy.accounts import revoke_key
from core.tenancy.audit import Actor, record
from core.tenancy.models import ApiKey, AuditEntry, Invitation, KeyUse, Member, User, WebSession

ERASED = "erased"
_RANDOM_BYTES = 8
_SCRUB = text("SELECT erase_from_audit(:tenant_id, :user_id)")
_SCRUB_TAGS = text("SELECT naka_erase_tags(:tenant_id, :user_id)")


async def erase_user(session: AsyncSession, actor: Actor, user: User) -> bool:
    """Erases a user's personal data; returns False if that was done before.

    Other users' keys that were created with the user's keys stay valid. Running answers end within their deadline and
    are settled under the user's id.
    """
    locked = select(User).where(User.tenant_id == user.tenant_id, User.id == user.id).with_for_update()
    found = (await session.scalars(locked.execution_options(populate_existing=True))).one()
    if found.erased_at is not None:
        return False
    for key in await _keys(session, found):
        await revoke_key(session, actor, key)
        key.name = key.prefix = ERASED
    await _forget_member(session, found)
    running = update(WebSession).where(WebSession.key_id.in_(_key_ids(found)), WebSession.ended_at.is_(None))
    await session.execute(running.values(ended_at=func.clock_timestamp()))
    found.external_id = f"{ERASED}-{secrets.token_hex(_RANDOM_BYTES)}"
    found.erased_at = await session.scalar(select(func.clock_timestamp()))
    record(session, actor, "user.erase", tenant_id=found.tenant_id, target=f"user:{found.id}")
    await session.flush()
    for scrub in (_SCRUB, _SCRUB_TAGS):
        await session.execute(scrub, {"tenant_id": found.tenant_id, "user_id": found.id})
    return True


async def _forget_member(session: AsyncSession, user: User) -> None:
    """Removes what names the person from its memberships, which ended with their keys, and from its invitations."""
    mine = update(Member).where(Member.tenant_id == user.tenant_id, Member.key_id.in_(_key_ids(user)))
    await session.execute(mine.values(email=ERASED, oidc_issuer=None, oidc_subject=None))
    invited = update(Invitation).where(Invitation.tenant_id == user.tenant_id, Invitation.email == user.external_id)
    ended_at = func.coalesce(Invitation.revoked_at, func.clock_timestamp())
    await session.execute(invited.values(email=ERASED, revoked_at=ended_at))


async def export_user(session: AsyncSession, user: User) -> dict[str, Any]:
    """Returns the user's personal data as JSON, without credentials."""
    keys = await _keys(session, user)
    used = select(KeyUse).where(KeyUse.tenant_id == user.tenant_id, KeyUse.key_id.in_([key.id for key in keys]))
    last_used = {use.key_id: use.last_used_at for use in await session.scalars(used)}
    columns = [getattr(WebSession, name) for name in ("id", "key_id", "created_at", "expires_at", "ended_at")]
    sessions = select(*columns).where(WebSession.key_id.in_(_key_ids(user))).order_by(WebSession.id)
    return {
        "user": _fields(user, "id", "tenant_id", "external_id", "created_at", "erased_at", "disabled_at"),
        "keys": [{**_fields(key, *_KEY_FIELDS), "last_used_at": last_used.get(key.id)} for key in keys],
        "members": [_fields(member, *_MEMBER_FIELDS) for member in await session.scalars(_memberships(user))],
        "sessions": [dict(row) for row in (await session.execute(sessions)).mappings()],
        "audit": [_fields(entry, *_AUDIT_FIELDS) for entry in await session.scalars(_about(user))],
    }


_KEY_FIELDS = (
    *("id", "tenant_id", "user_id", "name", "prefix", "scopes", "models", "created_at", "expires_at", "revoked_at"),
    *("parent_key_id", "predecessor_key_id"),
)
_MEMBER_FIELDS = ("id", "tenant_id", "email", "role", "oidc_issuer", "oidc_subject", "created_at", "removed_at")
_AUDIT_FIELDS = ("id", "tenant_id", "at", "actor", "actor_key_id", "action", "target", "before", "after", "request_id")


def _about(user: User) -> Any:
    """Selects the audit entries about a user or its keys, or made with its keys."""
    targets = select(func.concat("key:", ApiKey.id)).where(ApiKey.id.in_(_key_ids(user)))
    mine = or_(
        AuditEntry.target == f"user:{user.id}",
        AuditEntry.target.in_(targets),
        AuditEntry.actor_key_id.in_(_key_ids(user)),
    )
    return select(AuditEntry).where(AuditEntry.tenant_id == user.tenant_id, mine).order_by(AuditEntry.id)


def _memberships(user: User) -> Any:
    return select(Member).where(Member.tenant_id == user.tenant_id, Member.key_id.in_(_key_ids(user)))


async def _keys(session: AsyncSession, user: User) -> Sequence[ApiKey]:
    return (await session.scalars(select(ApiKey).where(ApiKey.id.in_(_key_ids(user))).order_by(ApiKey.id))).all()


def _key_ids(user: User) -> Any:
    return select(ApiKey.id).where(ApiKey.tenant_id == user.tenant_id, ApiKey.user_id == user.id)


def _fields(row: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
