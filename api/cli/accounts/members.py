"""`naka member` and `naka invite`: people who sign in at the identity provider."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.command import Call, Group, answering
from api.cli.options import Tenant, tenant_name
from api.schemas.members import NewInvitation, NewMemberBody
from api.services.members import invitations, members
from core.identity.invitations import DEFAULT_DAYS
from core.identity.roles import Role

app = Group()

Email = Annotated[str, typer.Argument(help="The address that the person signs in with.")]
MemberId = Annotated[UUID, typer.Argument(metavar="MEMBER_ID", help="A member's id.")]
Descendants = Annotated[
    bool, typer.Option("--descendants", help="Also end the keys that the member made for others, if affected alike.")
]
WithRole = Annotated[Role, typer.Option("--role", help="What the person may do.")]


@app.answering("list", "id", "email", "role", "has_signed_in", "by_claim", "created_at")
def list_all(tenant: Tenant) -> Call:
    """List the members of a tenant."""
    return lambda context: members.list_members(context, tenant_name(tenant))


@app.answering("add")
def add(tenant: Tenant, email: Email, *, role: WithRole = Role.OWNER) -> Call:
    """Add a member who needs no link: whoever signs in first with this email."""
    new = NewMemberBody(email=email, role=role)
    return lambda context: members.add_member(context, tenant_name(tenant), new)


@app.answering("role")
def change_role(
    tenant: Tenant,
    member_id: MemberId,
    role: Annotated[Role, typer.Argument(help="The new role.")],
    *,
    descendants: Descendants = False,
) -> Call:
    """Change a member's role, in its sessions too. Other keys of its user that exceed the role end."""
    return lambda context: members.change_role(context, tenant_name(tenant), member_id, role, descendants=descendants)


@app.answering("remove")
def remove(tenant: Tenant, member_id: MemberId, *, descendants: Descendants = False) -> Call:
    """Remove a member; its sessions and other keys of its user end at once."""
    return lambda context: members.remove_member(context, tenant_name(tenant), member_id, descendants=descendants)


@app.answering("invitations", "id", "email", "role", "actor", "expires_at")
def pending(tenant: Tenant) -> Call:
    """List the invitations that can still be accepted."""
    return lambda context: invitations.list_invitations(context, tenant_name(tenant))


@app.answering("revoke-invitation")
def revoke(
    tenant: Tenant, invitation_id: Annotated[UUID, typer.Argument(metavar="ID", help="An invitation's id.")]
) -> Call:
    """Revoke an invitation."""
    return lambda context: invitations.revoke_invitation(context, tenant_name(tenant), invitation_id)


@answering()
def invite(
    tenant: Tenant,
    email: Email,
    *,
    role: WithRole = Role.VIEWER,
    days: Annotated[int, typer.Option(help="Days for which the link is valid.")] = DEFAULT_DAYS,
) -> Call:
    """Invite a person, and print the link once."""
    new = NewInvitation(email=email, role=role, days=days)
    return lambda context: invitations.invite(context, tenant_name(tenant), new)
