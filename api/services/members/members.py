"""Members of a tenant: list them, change a role, remove one."""

from dataclasses import replace
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.members import MemberItem, NewMemberBody
from api.schemas.pages import Page, one_more, page
from api.services.accounts.lookups import GRANTABLE, reach_tenant
from api.services.context import ServiceContext, publish_after_commit
from core.clock import now_ms, to_datetime
from core.errors import Invalid
from core.identity import members
from core.identity.roles import SCOPES, Role
from core.tenancy.derivation import ExceedsParentKey, lock_parent_key
from core.tenancy.models import ApiKey, Member, Tenant, User
from core.tenancy.principal import Forbidden, Scope, UserDisabled, includes
from core.tenancy.sessions import end_sessions


async def list_members(
    context: ServiceContext, tenant: UUID | str, *, after: UUID | None = None, size: int | None = None
) -> Page[MemberItem]:
    """Members of a tenant, oldest first; all without a `size`. Raises NotFound, Forbidden."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        rows = await members.list_members(session, found.id, after=after, limit=one_more(size))
    return page(rows, size, item_of)


async def add_member(context: ServiceContext, tenant: UUID | str, new: NewMemberBody) -> MemberItem:
    """Adds a member who needs no link. Raises NotFound, Forbidden, Conflict."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        found = await managed_tenant(context, session, tenant)
        require_role(context, found.id, new.role)
        wanted = members.NewMember(new.email, new.role)
        live = context.settings.is_production
        return item_of(await members.add_member(session, context.actor, found.id, wanted, live=live))


async def change_role(
    context: ServiceContext, tenant: UUID | str, member_id: UUID, role: Role, *, descendants: bool = False
) -> MemberItem:
    """Changes a member's role, in its sessions too. Its user's other keys that exceed the new role end.

    `descendants`: also such keys that it made for others. Raises NotFound, Invalid for the only owner, Unauthenticated
    when the caller's key has ended, and Forbidden, also for a key that the caller may not end.
    """
    async with context.transaction(Scope.TENANT_MEMBERS) as session:
        found = await managed_tenant(context, session, tenant)
        member = await _changeable(context, session, found.id, member_id, role=role)
        ended = await members.change_role(
            session, context.actor, member, role, descendants=descendants, check=partial(_require_endable, context)
        )
        for tenant_id in {found.id, *(key.tenant_id for key in ended)}:
            publish_after_commit(session, tenant_id)
        return item_of(member)


async def remove_member(
    context: ServiceContext, tenant: UUID | str, member_id: UUID, *, descendants: bool = False
) -> MemberItem:
    """Removes a member: its sessions, its pending invitations and its user's other keys end at once.

    `descendants`: also the keys that it made for others, but for members'. Raises as `change_role`.
    """
    async with context.transaction(Scope.TENANT_MEMBERS) as session:
        found = await managed_tenant(context, session, tenant)
        member = await _changeable(context, session, found.id, member_id)
        ended = await members.remove_member(
            session, context.actor, member, descendants=descendants, check=partial(_require_endable, context)
        )
        await end_sessions(session, found.id, member.key_id)
        for tenant_id in {found.id, *(key.tenant_id for key in ended)}:
            publish_after_commit(session, tenant_id)
        return item_of(member)


async def managed_tenant(context: ServiceContext, session: AsyncSession, tenant: UUID | str) -> Tenant:
    """A tenant whose members the caller manages. Raises NotFound, Forbidden."""
    context.require(Scope.TENANT_MEMBERS)
    return await reach_tenant(context, session, tenant)


def require_role(context: ServiceContext, tenant_id: UUID, role: Role) -> None:
    """Raises ExceedsParentKey for a role beyond the caller's, Invalid for an operator in a customer's tenant."""
    principal = context.principal
    if principal is None:
        return
    if role is Role.OPERATOR:
        principal.require(Scope.PLATFORM_ADMIN)
        if tenant_id != principal.tenant_id:
            raise Invalid("an operator is a member of the operator's own tenant")
    if not principal.is_platform_admin and not all(principal.may(scope) for scope in SCOPES[role]):
        raise ExceedsParentKey(f"Your own role does not include {role.value}.")


async def _changeable(
    context: ServiceContext, session: AsyncSession, tenant_id: UUID, member_id: UUID, *, role: Role | None = None
) -> Member:
    """A member that the caller may change, to `role`. An operator may also leave a tenant without an owner."""
    owners = await members.lock_owners(session, tenant_id)
    member = await members.find_member(session, member_id, tenant_id=tenant_id)
    context = await _with_locked_rights(context, session)
    require_role(context, tenant_id, Role(member.role))
    if role is not None:
        require_role(context, tenant_id, role)
    if owners == [member.id] and role is not Role.OWNER and not context.is_platform_admin:
        raise Invalid("an account keeps one owner: make somebody else an owner first")
    return member


async def _with_locked_rights(context: ServiceContext, session: AsyncSession) -> ServiceContext:
    """The context with the rights that the caller's key has now, until this transaction ends.

    The caller was authenticated before it waited for the locks: meanwhile it may have been removed, or changed. Raises
    Unauthenticated, UserDisabled, Forbidden.
    """
    if context.principal is None:
        return context
    key = await lock_parent_key(session, context.principal.key_id, now=to_datetime(now_ms()))
    user = await session.get_one(
        User, (key.tenant_id, key.user_id), with_for_update={"read": True, "key_share": True}, populate_existing=True
    )
    if user.disabled_at is not None:
        raise UserDisabled(key.tenant_id)
    now_held = frozenset(Scope(scope) for scope in key.scopes)
    # The account's pages narrow an operator to its own tenant (`ServiceContext.own`): what they left out stays out.
    scopes = frozenset(scope for scope in context.principal.scopes if includes(now_held, scope))
    current = replace(context, principal=replace(context.principal, scopes=scopes))
    current.require(Scope.TENANT_MEMBERS)
    return current


def _require_endable(context: ServiceContext, key: ApiKey) -> None:
    """Raises Forbidden for a key that ends with a membership, with permissions beyond those of the tenant's owners."""
    if not context.is_platform_admin and not (GRANTABLE | SCOPES[Role.OWNER]).issuperset(key.scopes):
        raise Forbidden("This member has a key of the operator's. Ask the operator to change or remove the member.")


def item_of(member: Member) -> MemberItem:
    """The shape of a row."""
    return MemberItem.completed(member, has_signed_in=member.oidc_subject is not None)
