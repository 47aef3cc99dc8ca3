"""The members of the account and its invitations. Owners invite, change roles, remove and revoke; admins look.

An operator sees its own tenant's members here, and may invite operators.
"""

from uuid import UUID

from fastapi import Request
from fastapi.responses import Response

from api.auth.credentials import drop_session
from api.pages.account.frame import (
    REFUSALS,
    FormDep,
    Said,
    above,
    leave_refused,
    parsed,
    perform,
    refused,
    show,
    taken,
)
from api.pages.members.provider import site_of
from api.pages.once import leave
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin, Visitor
from api.routes.parameters import Cursor
from api.schemas.members import NewInvitation, RoleChoice
from api.services.members import invitations, members
from core.identity.roles import SCOPES, Role
from core.tenancy.principal import Scope

router = page_router("/account")
_PAGE = "/account/members"
_SIZE = 100
_SENTENCES = {
    "email": "Enter an email address.",
    "role": "Choose a role.",
    "days": "Choose how long the link is valid.",
}
_SAID = {
    "role": "Role changed. It applies at once. Their own keys beyond the new role have ended.",
    "removed": "Member removed. Their sessions and their own keys have ended.",
    "revoked": "Invitation revoked. Its link no longer works.",
}
ROLES = {
    Role.VIEWER: ("Viewer", "sees the usage of the account"),
    Role.ADMIN: ("Admin", "also manages users, keys, plan and bills"),
    Role.OWNER: ("Owner", "also manages members"),
    Role.OPERATOR: ("Operator", "administers every account"),
}


@router.get("/members")
async def members_page(request: Request, visitor: AccountAdmin, said: Said = "", cursor: Cursor = None) -> Response:
    """Members, oldest first, and pending invitations; the link of a new one, once."""
    typed, status, left = taken(request)
    tenant_id, manages = visitor.principal.tenant_id, visitor.principal.may(Scope.TENANT_MEMBERS)
    return show(
        request,
        "members",
        visitor,
        status=status,
        typed=typed,
        said=_SAID.get(said, ""),
        found=await members.list_members(visitor.context, tenant_id, after=cursor, size=_SIZE),
        pending=await invitations.list_invitations(visitor.context, tenant_id),
        made=left if "link" in left else None,
        manages=manages,
        provider=visitor.context.settings.oidc_shown_name,
        roles=_offered(visitor) if manages else {},
        names=ROLES,
    )


@router.post("/members")
async def invite(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Makes an invitation, whose link only the page after this answer shows."""
    try:
        body = parsed(NewInvitation, {"email": form.text("email"), "role": form.text("role")}, _SENTENCES)
        made = await invitations.invite(visitor.context, visitor.principal.tenant_id, body, site=site_of(request))
    except REFUSALS as error:
        typed, status = refused(form, error, "email")
        return leave_refused(request, _PAGE, typed, status)
    return leave(request, _PAGE, link=made.link, email=made.email, role=made.role.value, expires=str(made.expires_at))


@router.post("/members/{member_id}/role")
async def change_role(request: Request, visitor: AccountAdmin, member_id: UUID, form: FormDep) -> Response:
    """Changes a member's role, and with `descendants` ends keys that it made for others and that exceed the role."""
    descendants = bool(form.text("descendants"))

    async def change() -> None:
        choice = parsed(RoleChoice, {"role": form.text("role")}, _SENTENCES)
        await members.change_role(
            visitor.context, visitor.principal.tenant_id, member_id, choice.role, descendants=descendants
        )

    return await perform(request, _PAGE, change, "role")


@router.post("/members/{member_id}/remove")
async def remove(request: Request, visitor: AccountAdmin, member_id: UUID, form: FormDep) -> Response:
    """Removes a member, and with `descendants` the keys that it made for others. Removing oneself ends this session."""
    tenant_id, descendants = visitor.principal.tenant_id, bool(form.text("descendants"))
    try:
        removed = await members.remove_member(visitor.context, tenant_id, member_id, descendants=descendants)
    except REFUSALS as error:
        typed, status = above(error)
        return leave_refused(request, _PAGE, typed, status)
    if removed.key_id != visitor.principal.key_id:
        return see_other(f"{_PAGE}?said=removed")
    answer = leave(request, "/sign-in", said="You left the account, and your session has ended.")
    drop_session(answer)
    return answer


@router.post("/invitations/{invitation_id}/revoke")
async def revoke(request: Request, visitor: AccountAdmin, invitation_id: UUID) -> Response:
    """Revokes an invitation."""
    tenant_id = visitor.principal.tenant_id
    return await perform(
        request,
        _PAGE,
        lambda: invitations.revoke_invitation(visitor.context, tenant_id, invitation_id),
        "revoked",
    )


def _offered(visitor: Visitor) -> dict[Role, tuple[str, str]]:
    """The roles that this visitor may give."""
    may = visitor.principal.may
    return {role: words for role, words in ROLES.items() if all(may(scope) for scope in SCOPES[role] - _OWN_USAGE)}


_OWN_USAGE = frozenset({Scope.USAGE_READ})
"""An operator's key need not have it."""
