"""Shapes of members and invitations."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from api.schemas.fields import Body, example
from api.schemas.rows import Row
from core.identity.invitations import DEFAULT_DAYS, MAX_DAYS
from core.identity.persons import MAX_EMAIL, normal_email
from core.identity.roles import Role

Email = Annotated[str, Field(min_length=3, max_length=MAX_EMAIL), AfterValidator(normal_email)]


class NewInvitation(Body):
    """An invitation by a link that is good for `days`."""

    model_config = example(email="ada@acme.example", role="viewer", days=DEFAULT_DAYS)

    email: Email
    role: Role
    days: int = Field(DEFAULT_DAYS, strict=True, ge=1, le=MAX_DAYS)


class NewMemberBody(Body):
    """A member who needs no link: the first person to sign in with this email, verified by the provider."""

    email: Email
    role: Role


class RoleChoice(Body):
    """A member's new role."""

    model_config = example(role="admin")

    role: Role


class MemberItem(Row):
    """A member. `has_signed_in` false: added by email, and nobody has signed in with it yet."""

    id: UUID
    tenant_id: UUID
    key_id: UUID
    email: str
    role: Role
    by_claim: bool
    """The identity provider says at each sign-in who the member is; a change made here lasts until then."""
    has_signed_in: bool
    created_at: datetime


class InvitationItem(Row):
    """An invitation that can still be accepted. `actor`: who made it."""

    id: UUID
    tenant_id: UUID
    email: str
    role: Role
    actor: str
    created_at: datetime
    expires_at: datetime


class InvitationMade(InvitationItem):
    """A new invitation. `link` is shown in this answer only; without PUBLIC_URL it is a path."""

    link: str


class Membership(Row):
    """A person's role in a tenant."""

    tenant_id: UUID
    tenant: str
    role: Role


class Invited(Row):
    """The offer of a link: a role in a tenant, to an email."""

    email: str
    role: Role
    tenant: str
