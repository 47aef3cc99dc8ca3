"""Invitations: a link that makes one member, once, of whoever signs in with the invited email.

The SHA-256 of the link's 256 random bits is stored. An invitation ends with its time, with its revocation, and with the
key or the user of whoever made it: the new member's key is derived from that key, within its rights.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict, Invalid, NotFound
from core.identity.members import NewMember, add_member, find_by_email, memberships
from core.identity.persons import NotAdmitted, Person
from core.identity.roles import Role
from core.ids import uuid7
from core.tenancy.accounts import find_tenant
from core.tenancy.audit import Actor, record
from core.tenancy.models import ApiKey, Invitation, Member, User
from core.tenancy.principal import Forbidden, Scope, Unauthenticated, includes

MAX_DAYS = 30
DEFAULT_DAYS = 7
MAX_PENDING = 500
"""Of a tenant."""
_BYTES = 32
_KEY = "key:"


def hash_token(token: str) -> bytes:
    """Returns the stored hash: 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


async def invite(
    session: AsyncSession, actor: Actor, tenant_id: UUID, *, email: str, role: Role, days: int
) -> tuple[Invitation, str]:
    """Makes an invitation, in place of earlier ones of this email; returns it with its token, which is not stored.

    Raises NotFound for the tenant, Conflict for a member's email, Invalid when too many are pending.
    """
    await find_tenant(session, tenant_id)
    if await find_by_email(session, tenant_id, email) is not None:
        raise Conflict("this email is a member's already")
    for earlier in await session.scalars(_pending(tenant_id).where(Invitation.email == email).with_for_update()):
        await revoke_invitation(session, actor, earlier)
    pending = select(func.count()).select_from(_pending(tenant_id).subquery())
    if (await session.scalar(pending) or 0) >= MAX_PENDING:
        raise Invalid(f"{MAX_PENDING} invitations are pending: revoke some first")
    token = secrets.token_urlsafe(_BYTES)
    made = Invitation(
        tenant_id=tenant_id,
        id=uuid7(),
        email=email,
        role=role.value,
        hash=hash_token(token),
        actor=actor.name,
        expires_at=func.clock_timestamp() + timedelta(days=days),
    )
    session.add(made)
    await session.flush()
    await session.refresh(made)
    _record(session, actor, "invitation.create", made)
    return made, token


async def list_pending(session: AsyncSession, tenant_id: UUID) -> Sequence[Invitation]:
    """The invitations of a tenant that can still be accepted, oldest first; `MAX_PENDING` at most."""
    return (await session.scalars(_pending(tenant_id).order_by(Invitation.id))).all()


async def find_invitation(session: AsyncSession, invitation_id: UUID, *, tenant_id: UUID) -> Invitation:
    """A pending invitation of the tenant, locked for update. Raises NotFound."""
    query = _pending(tenant_id).where(Invitation.id == invitation_id).with_for_update()
    found: Invitation | None = await session.scalar(query)
    if found is None:
        raise NotFound("no such invitation")
    return found


async def revoke_invitation(session: AsyncSession, actor: Actor, invitation: Invitation) -> None:
    """Ends an invitation: its link makes no member."""
    invitation.revoked_at = await session.scalar(select(func.clock_timestamp()))
    await session.flush()
    _record(session, actor, "invitation.revoke", invitation)


async def read_link(session: AsyncSession, hashed: bytes, *, lock: bool = False) -> Invitation:
    """The pending invitation of a link. Raises NotAdmitted."""
    query = select(Invitation).where(Invitation.hash == hashed, *_IS_PENDING)
    found: Invitation | None = await session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotAdmitted("This invitation was used, revoked, or is too old. Ask for a new one.")
    return found


async def accept(session: AsyncSession, hashed: bytes, person: Person, *, request_id: str | None, live: bool) -> Member:
    """Makes the person a member. Raises NotAdmitted for another email, and when whoever invited has lost the right."""
    invitation = await read_link(session, hashed, lock=True)
    if invitation.email != person.email:
        raise NotAdmitted(f"This invitation is for another address than {person.email}.")
    tenant_id = invitation.tenant_id
    actor = Actor(f"invitation:{invitation.id}", _key_of(invitation.actor), request_id)
    known = [each for each in await memberships(session, person.issuer, person.subject) if each.tenant_id == tenant_id]
    try:
        await _require_right(session, actor.key_id)
        new = NewMember(person.email, Role(invitation.role), person)
        member = known[0] if known else await add_member(session, actor, tenant_id, new, live=live)
    except (Unauthenticated, Forbidden):
        raise NotAdmitted("Whoever invited you may do so no more. Ask for a new invitation.") from None
    except (Conflict, Invalid) as error:
        raise NotAdmitted("This address cannot join the account. Ask for help there.") from error
    invitation.accepted_at = await session.scalar(select(func.clock_timestamp()))
    await session.flush()
    _record(session, actor, "invitation.accept", invitation)
    return member


async def _require_right(session: AsyncSession, key_id: UUID | None) -> None:
    """Raises Forbidden when the key of whoever invited may invite no more, also while its user is disabled.

    Revoked ones are refused as a parent key.
    """
    if key_id is None:
        return
    is_owner = and_(User.tenant_id == ApiKey.tenant_id, User.id == ApiKey.user_id)
    is_enabled = and_(User.disabled_at.is_(None), User.erased_at.is_(None))
    query = select(ApiKey.scopes).join(User, is_owner).where(ApiKey.id == key_id, is_enabled)
    scopes = await session.scalar(query)
    if not includes(scopes or (), Scope.TENANT_MEMBERS):
        raise Forbidden("this key may not invite")


_IS_PENDING: tuple[ColumnElement[bool], ...] = (
    Invitation.accepted_at.is_(None),
    Invitation.revoked_at.is_(None),
    Invitation.expires_at > func.clock_timestamp(),
)


def _pending(tenant_id: UUID) -> Any:
    return select(Invitation).where(Invitation.tenant_id == tenant_id, *_IS_PENDING)


def _key_of(actor: str) -> UUID | None:
    """The key of whoever made an invitation; None from the command line."""
    return UUID(actor.removeprefix(_KEY)) if actor.startswith(_KEY) else None


def _record(session: AsyncSession, actor: Actor, action: str, invitation: Invitation) -> None:
    after = {"role": invitation.role, "expires_at": invitation.expires_at.isoformat()}  # no email: see describe_member
    target = f"invitation:{invitation.id}"
    record(session, actor, action, tenant_id=invitation.tenant_id, target=target, after=after)
