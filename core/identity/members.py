"""Members: people who sign in at the identity provider, each with a role in a tenant and a key that acts for it.

Nobody has the secret of that key. Its scopes are the role's, and revoking it removes the member, so sessions and rights
end on every process at once. Removing a member also ends the other keys of its user. Once a person has signed in,
issuer and subject identify it; before, its email does.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import now_ms, to_ms
from core.errors import Conflict, NotFound
from core.identity.persons import Person
from core.identity.roles import SCOPES, Role, lost_scopes
from core.ids import uuid7
from core.tenancy.accounts import create_key, find_tenant, revoke_key
from core.tenancy.audit import Actor, record
from core.tenancy.derivation import find_tree
from core.tenancy.models import ApiKey, Member, User
from core.tenancy.principal import Principal, Unauthenticated


@dataclass(frozen=True, slots=True)
class NewMember:
    """A member to add. `person`: known already; None: whoever signs in first with this email."""

    email: str
    role: Role
    person: Person | None = None
    by_claim: bool = False


async def add_member(session: AsyncSession, actor: Actor, tenant_id: UUID, new: NewMember, *, live: bool) -> Member:
    """Adds a member with a key, as a user that has the email as its name.

    Created with a key (`actor.key_id`), its rights are bounded by that key's. Raises Conflict for an email that is a
    member's, NotFound for the tenant, and as `create_key`.
    """
    user = await _user(session, actor, tenant_id, new.email)
    if await find_by_email(session, tenant_id, new.email) is not None:
        raise Conflict("this email is a member's already")
    key, _ = await create_key(
        session,
        actor,
        user,
        name=f"member {new.email}",
        scopes=sorted(SCOPES[new.role]),
        models=None,
        expires_at=None,
        live=live,
    )
    member = Member(
        tenant_id=tenant_id,
        id=uuid7(),
        key_id=key.id,
        email=new.email,
        role=new.role.value,
        oidc_issuer=None if new.person is None else new.person.issuer,
        oidc_subject=None if new.person is None else new.person.subject,
        by_claim=new.by_claim,
    )
    session.add(member)
    await session.flush()
    await session.refresh(member)
    _record(session, actor, "member.add", member)
    return member


async def _user(session: AsyncSession, actor: Actor, tenant_id: UUID, email: str) -> User:
    """The user of this name, created if missing, and locked: two additions of one email wait for each other."""
    await find_tenant(session, tenant_id)
    made = insert(User).values(tenant_id=tenant_id, id=uuid7(), external_id=email).on_conflict_do_nothing()
    created = await session.scalar(made.returning(User.id))
    if created is not None:
        after = {"external_id": email}
        record(session, actor, "user.create", tenant_id=tenant_id, target=f"user:{created}", after=after)
    query = select(User).where(User.tenant_id == tenant_id, User.external_id == email).with_for_update(key_share=True)
    return (await session.scalars(query)).one()


async def find_member(session: AsyncSession, member_id: UUID, *, tenant_id: UUID) -> Member:
    """An active member of the tenant, locked for update. Raises NotFound."""
    query = select(Member).where(Member.tenant_id == tenant_id, Member.id == member_id, Member.removed_at.is_(None))
    found: Member | None = await session.scalar(query.with_for_update().execution_options(populate_existing=True))
    if found is None:
        raise NotFound("no such member")
    return found


async def find_by_email(session: AsyncSession, tenant_id: UUID, email: str) -> Member | None:
    """The active member with this email."""
    query = select(Member).where(Member.tenant_id == tenant_id, Member.email == email, Member.removed_at.is_(None))
    found: Member | None = await session.scalar(query)
    return found


async def memberships(session: AsyncSession, issuer: str, subject: str) -> Sequence[Member]:
    """The active memberships of a person, of any tenant, oldest first."""
    query = select(Member).where(
        Member.oidc_issuer == issuer, Member.oidc_subject == subject, Member.removed_at.is_(None)
    )
    return (await session.scalars(query.order_by(Member.id))).all()


async def awaited(session: AsyncSession, email: str) -> Sequence[Member]:
    """The active members with this email that nobody has signed in as, locked for update, oldest first."""
    query = select(Member).where(Member.email == email, Member.oidc_subject.is_(None), Member.removed_at.is_(None))
    return (await session.scalars(query.order_by(Member.id).with_for_update())).all()


async def lock_person(session: AsyncSession, person: Person) -> None:
    """Sign-ins of one person wait for each other until this transaction ends."""
    name = f"naka:person:{person.issuer}:{person.subject}"
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


async def list_members(session: AsyncSession, tenant_id: UUID, *, after: UUID | None, limit: int | None) -> Any:
    """The active members of a tenant, oldest first."""
    query = select(Member).where(Member.tenant_id == tenant_id, Member.removed_at.is_(None)).order_by(Member.id)
    query = query if after is None else query.where(Member.id > after)
    return (await session.scalars(query if limit is None else query.limit(limit))).all()


async def change_role(
    session: AsyncSession,
    actor: Actor,
    member: Member,
    role: Role,
    *,
    descendants: bool = False,
    check: Callable[[ApiKey], None] | None = None,
) -> list[ApiKey]:
    """Changes the rights of the member's key, in its sessions too. Idempotent.

    Revokes other keys of its user that have a permission which the role takes away; `descendants`: also such keys that
    were derived from these or the member's. Returns the keys revoked. `check`: raises for one that must not end.
    """
    if member.role == role:
        return []
    before, lost = describe_member(member), lost_scopes(Role(member.role), role)
    key = await session.get_one(ApiKey, (member.tenant_id, member.key_id), with_for_update=True)
    key.scopes, member.role = sorted(scope.value for scope in SCOPES[role]), role.value
    await session.flush()
    _record(session, actor, "member.change", member, before)
    return await _end_keys(session, actor, key, lost, descendants=descendants, check=check) if lost else []


async def remove_member(
    session: AsyncSession,
    actor: Actor,
    member: Member,
    *,
    descendants: bool = False,
    check: Callable[[ApiKey], None] | None = None,
) -> list[ApiKey]:
    """Revokes the member's key, the invitations that it made, and every other key of its user.

    `descendants`: also the keys that were derived from these, but for other members'. Returns the other keys revoked.
    `check`: raises for one that must not end.
    """
    _record(session, actor, "member.remove", member, describe_member(member))
    key = await session.get_one(ApiKey, (member.tenant_id, member.key_id), with_for_update=True)
    await revoke_key(session, actor, key)
    await session.refresh(member)
    return await _end_keys(session, actor, key, None, descendants=descendants, check=check)


async def _end_keys(
    session: AsyncSession,
    actor: Actor,
    key: ApiKey,
    lost: AbstractSet[str] | None,
    *,
    descendants: bool,
    check: Callable[[ApiKey], None] | None,
) -> list[ApiKey]:
    """Revokes the other keys of the user of `key`, and with `descendants` what is derived; None: whatever their scopes.

    Searches until none is left, as `revoke_tree`: creating a key share-locks its parent, so that a key created
    meanwhile is found by the next search.
    """
    of_user = select(ApiKey).where(ApiKey.tenant_id == key.tenant_id, ApiKey.user_id == key.user_id)
    query = of_user.order_by(ApiKey.id).with_for_update().execution_options(populate_existing=True)
    ended: list[ApiKey] = []
    while True:
        roots = (await session.scalars(query)).all()
        found = {each.id: each for each in roots if each.revoked_at is None and each.id != key.id}
        for root in roots if descendants else ():
            found |= {each.id: each for each in await find_tree(session, root)}
        ending = [each for each in found.values() if lost is None or not lost.isdisjoint(each.scopes)]
        if not ending:
            return ended
        for each in ending:
            if check is not None:
                check(each)
            await revoke_key(session, actor, each)
        ended += ending


async def lock_owners(session: AsyncSession, tenant_id: UUID) -> list[UUID]:
    """The ids of a tenant's owners, locked before any other member: two changes of one tenant wait for each other."""
    owners = select(Member.id).where(
        Member.tenant_id == tenant_id, Member.role == Role.OWNER.value, Member.removed_at.is_(None)
    )
    return list((await session.scalars(owners.order_by(Member.id).with_for_update())).all())


async def principal_of(session: AsyncSession, member: Member) -> Principal:
    """The principal of a member's key. Raises Unauthenticated when it has ended."""
    key = await session.get_one(ApiKey, (member.tenant_id, member.key_id))
    if key.revoked_at is not None or (key.expires_at is not None and to_ms(key.expires_at) <= now_ms()):
        raise Unauthenticated
    return Principal(key.tenant_id, key.user_id, key.id, frozenset(key.scopes), key_prefix=key.prefix)


def describe_member(member: Member) -> dict[str, Any]:
    """A member as the audit log shows it: without the email, which an erasure could not remove there."""
    return {"role": member.role, "key_id": str(member.key_id), "by_claim": member.by_claim}


def _record(
    session: AsyncSession, actor: Actor, action: str, member: Member, before: dict[str, Any] | None = None
) -> None:
    after = describe_member(member)
    target = f"member:{member.id}"
    record(session, actor, action, tenant_id=member.tenant_id, target=target, before=before, after=after)
