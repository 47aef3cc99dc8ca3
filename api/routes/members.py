"""Routes of a tenant's members and invitations, under `/v1/admin`. Owners and operators change them, admins read."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query

from api.auth.access import TenantContext
from api.routes.parameters import Cursor, PageSize, TenantId
from api.routes.route import admin_router
from api.schemas.fields import EXAMPLE_ID
from api.schemas.members import InvitationItem, InvitationMade, MemberItem, NewInvitation, RoleChoice
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.members import invitations, members

router = admin_router()

MemberId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
Descendants = Annotated[bool, Query(description="Also end the keys that the member made for others, if affected alike")]
InvitationId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]


@router.get("/tenants/{tenant_id}/members")
async def members_of_tenant(
    tenant_id: TenantId, context: TenantContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[MemberItem]:
    """The members of a tenant, oldest first."""
    return await members.list_members(context, tenant_id, after=cursor, size=size)


@router.put("/tenants/{tenant_id}/members/{member_id}/role")
async def member_role(
    tenant_id: TenantId,
    member_id: MemberId,
    body: RoleChoice,
    context: TenantContext,
    *,
    descendants: Descendants = False,
) -> MemberItem:
    """Change a member's role. It applies to running sessions at once. Keys of its user that exceed it end."""
    return await members.change_role(context, tenant_id, member_id, body.role, descendants=descendants)


@router.delete("/tenants/{tenant_id}/members/{member_id}", status_code=204)
async def end_member(
    tenant_id: TenantId, member_id: MemberId, context: TenantContext, *, descendants: Descendants = False
) -> None:
    """Remove a member. Sessions, invitations and other keys of the member's user end at once."""
    await members.remove_member(context, tenant_id, member_id, descendants=descendants)


@router.post("/tenants/{tenant_id}/invitations", status_code=201)
async def new_invitation(tenant_id: TenantId, body: NewInvitation, context: TenantContext) -> InvitationMade:
    """Invite a person. Only this answer contains the link."""
    return await invitations.invite(context, tenant_id, body)


@router.get("/tenants/{tenant_id}/invitations")
async def pending_invitations(tenant_id: TenantId, context: TenantContext) -> Page[InvitationItem]:
    """The invitations that can still be accepted, oldest first; at most 500."""
    return Page(items=await invitations.list_invitations(context, tenant_id))


@router.delete("/tenants/{tenant_id}/invitations/{invitation_id}", status_code=204)
async def end_invitation(tenant_id: TenantId, invitation_id: InvitationId, context: TenantContext) -> None:
    """Revoke an invitation."""
    await invitations.revoke_invitation(context, tenant_id, invitation_id)
