"""Invitations: made by an owner or an operator, shown to whoever opens the link, revoked."""

from uuid import UUID

from sqlalchemy import select

from api.schemas.members import InvitationItem, InvitationMade, Invited, NewInvitation
from api.services.accounts.lookups import reach_tenant
from api.services.context import ServiceContext
from api.services.members.members import managed_tenant, require_role
from core.identity import invitations
from core.postgres.database import Database
from core.tenancy.models import Tenant
from core.tenancy.principal import Scope

LINK = "/sign-in/invitation/"


async def invite(
    context: ServiceContext, tenant: UUID | str, new: NewInvitation, *, site: str | None = None
) -> InvitationMade:
    """Makes an invitation, in place of earlier ones of this email. `site`: what its link begins with, else PUBLIC_URL.

    Raises NotFound, Forbidden, ExceedsParentKey for a role beyond the caller's, Conflict, Invalid.
    """
    async with context.transaction(Scope.TENANT_MEMBERS) as session:
        found = await managed_tenant(context, session, tenant)
        require_role(context, found.id, new.role)
        made, token = await invitations.invite(
            session, context.actor, found.id, email=new.email, role=new.role, days=new.days
        )
    link = f"{context.settings.public_url or site or ''}{LINK}{token}"
    return InvitationMade.completed(made, link=link)


async def list_invitations(context: ServiceContext, tenant: UUID | str) -> list[InvitationItem]:
    """Pending invitations of a tenant, oldest first. Raises NotFound, Forbidden."""
    async with context.transaction() as session:
        found = await reach_tenant(context, session, tenant)
        return [InvitationItem.of(each) for each in await invitations.list_pending(session, found.id)]


async def revoke_invitation(context: ServiceContext, tenant: UUID | str, invitation_id: UUID) -> InvitationItem:
    """Ends an invitation. Raises NotFound, Forbidden."""
    async with context.transaction(Scope.TENANT_MEMBERS) as session:
        found = await managed_tenant(context, session, tenant)
        invitation = await invitations.find_invitation(session, invitation_id, tenant_id=found.id)
        await invitations.revoke_invitation(session, context.actor, invitation)
        return InvitationItem.of(invitation)


async def read_link(database: Database, token: str) -> Invited:
    """What a link offers. Raises NotAdmitted."""
    async with database.session() as session:
        found = await invitations.read_link(session, invitations.hash_token(token))
        tenant = await session.scalar(select(Tenant.name).where(Tenant.id == found.tenant_id))
    return Invited.completed(found, tenant=tenant)
