"""Arrivals: whom a verified person signs in as.

In this order: the member that the provider's claims name, the invitation of the link that was opened, the person's
memberships, and members added by email whom nobody has signed in as yet. A person without any is refused. Runs without
row-level security: it is not known yet whose tenant it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.accounts.sessions import Origin
from api.schemas.members import Membership
from core.errors import Conflict, Invalid
from core.identity.invitations import accept
from core.identity.members import (
    NewMember,
    add_member,
    awaited,
    change_role,
    find_by_email,
    lock_person,
    memberships,
    principal_of,
    remove_member,
)
from core.identity.persons import NotAdmitted, Person
from core.identity.roles import Role
from core.postgres.database import Database
from core.redis.changes import Changes
from core.settings import Settings
from core.tenancy.audit import Actor
from core.tenancy.models import Member, Tenant
from core.tenancy.principal import Principal, Unauthenticated

_PROVIDER = "identity provider"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A verified person at the door. `invited`: the hash of the invitation's token, if it came by such a link."""

    person: Person
    origin: Origin
    invited: bytes | None = None


async def arrive(database: Database, changes: Changes, settings: Settings, arrival: Arrival) -> Principal:
    """The principal that the person signs in as. Raises NotAdmitted, Unavailable.

    What the provider's claims take away is taken away although the person is refused.
    """
    person, actor = arrival.person, Actor(_PROVIDER, None, arrival.origin.request_id)
    async with database.session() as session:  # of its own: a refusal below undoes nothing of it
        await lock_person(session, person)
        tenant_id = await _named_tenant(session, settings, person)
        moved = await _withdraw(session, actor, person, tenant_id)
    for each in moved:
        await changes.publish(each)
    async with database.session() as session:
        await lock_person(session, person)
        known = await _by_claims(session, actor, settings, person, tenant_id)
        member = await _member(session, settings, arrival, known)
        principal = None if member is None else await _principal(session, member)
    if tenant_id is not None:
        await changes.publish(tenant_id)
    if principal is None:
        raise NotAdmitted(f"No account has a member {person.email}. Ask an owner of your account for an invitation.")
    return principal


async def list_memberships(database: Database, principal: Principal) -> list[Membership]:
    """The memberships of the person behind the caller, its own first; none for a key that is no member's."""
    async with database.session() as session:
        own = await _own(session, principal)
        if own is None:
            return []
        found = [own, *(each for each in await _others(session, own))]
        names = select(Tenant.id, Tenant.name).where(Tenant.id.in_([each.tenant_id for each in found]))
        named = {row.id: row.name for row in await session.execute(names)}
    return [Membership.completed(each, tenant=named[each.tenant_id]) for each in found]


async def switch(database: Database, principal: Principal, tenant_id: UUID) -> Principal:
    """The principal of the caller's membership in another tenant. Raises NotAdmitted, also for a key."""
    async with database.session() as session:
        own = await _own(session, principal)
        for member in () if own is None else await _others(session, own):
            if member.tenant_id == tenant_id:
                return await _principal(session, member)
    raise NotAdmitted("You are no member of this account.")


async def _own(session: AsyncSession, principal: Principal) -> Member | None:
    query = select(Member).where(
        Member.tenant_id == principal.tenant_id, Member.key_id == principal.key_id, Member.removed_at.is_(None)
    )
    found: Member | None = await session.scalar(query)
    return found


async def _others(session: AsyncSession, own: Member) -> list[Member]:
    if own.oidc_issuer is None or own.oidc_subject is None:
        return []
    return [each for each in await memberships(session, own.oidc_issuer, own.oidc_subject) if each.id != own.id]


async def _principal(session: AsyncSession, member: Member) -> Principal:
    try:
        return await principal_of(session, member)
    except Unauthenticated:
        raise NotAdmitted("Your access to this account has ended. Ask an owner for a new invitation.") from None


async def _member(
    session: AsyncSession, settings: Settings, arrival: Arrival, known: Sequence[Member]
) -> Member | None:
    person = arrival.person
    if arrival.invited is not None:
        request_id = arrival.origin.request_id
        return await accept(session, arrival.invited, person, request_id=request_id, live=settings.is_production)
    expected = await awaited(session, person.email)
    for member in expected:
        member.oidc_issuer, member.oidc_subject = person.issuer, person.subject
    return next(iter((*known, *expected)), None)


async def _named_tenant(session: AsyncSession, settings: Settings, person: Person) -> UUID | None:
    """The tenant that the claims name with a role in it; None for none of ours."""
    if person.role is None or (Role(person.role) is Role.OPERATOR and person.tenant != settings.oidc_operator_tenant):
        return None
    found: UUID | None = await session.scalar(select(Tenant.id).where(Tenant.slug == person.tenant))
    return found


async def _withdraw(session: AsyncSession, actor: Actor, person: Person, tenant_id: UUID | None) -> set[UUID]:
    """Removes the memberships that the claims named once, and gives the one that they name its role.

    Returns the tenants of these members.
    """
    moved = set[UUID]()
    for member in await memberships(session, person.issuer, person.subject):
        if member.tenant_id == tenant_id:
            await change_role(session, actor, member, Role(person.role or Role.VIEWER))
        elif member.by_claim:
            await remove_member(session, actor, member)
        else:
            continue
        moved.add(member.tenant_id)
    return moved


async def _by_claims(
    session: AsyncSession, actor: Actor, settings: Settings, person: Person, tenant_id: UUID | None
) -> Sequence[Member]:
    """The person's memberships, the one that its claims name first, added if missing."""
    known = await memberships(session, person.issuer, person.subject)
    if tenant_id is None:
        return known
    named = await _named(session, actor, settings, person, tenant_id)
    return [named, *(each for each in known if each is not named)]


async def _named(session: AsyncSession, actor: Actor, settings: Settings, person: Person, tenant_id: UUID) -> Member:
    """The member that the claims name, with the role that they name, added if missing. Raises NotAdmitted."""
    role = Role(person.role or Role.VIEWER)
    known = await memberships(session, person.issuer, person.subject)
    found = next((each for each in known if each.tenant_id == tenant_id), None)
    found = found or await find_by_email(session, tenant_id, person.email)
    if found is None:
        new = NewMember(person.email, role, person, by_claim=True)
        try:
            return await add_member(session, actor, tenant_id, new, live=settings.is_production)
        except (Conflict, Invalid) as error:
            raise NotAdmitted("This address cannot join the account. Ask for help there.") from error
    if (found.oidc_issuer, found.oidc_subject) not in ((None, None), (person.issuer, person.subject)):
        raise NotAdmitted(f"Somebody else is a member as {person.email}. An owner of your account can remove them.")
    found.oidc_issuer, found.oidc_subject, found.by_claim = person.issuer, person.subject, True
    await change_role(session, actor, found, role)
    return found
