"""Shapes of the audit log, and of the erasure and the export of a person's data."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator

from api.schemas.accounts.keys import KeyItem
from api.schemas.accounts.users import UserItem
from api.schemas.rows import Row
from api.schemas.usage.counts import DayUsage
from api.schemas.usage.requests import RequestItem
from core.tenancy.audit import PLATFORM


class AuditItem(Row):
    """One change. `tenant_id` is null for changes of no single tenant: a price, a plan."""

    id: UUID
    tenant_id: Annotated[UUID | None, BeforeValidator(lambda tenant_id: None if tenant_id == PLATFORM else tenant_id)]
    at: datetime
    actor: str
    actor_key_id: UUID | None
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None


class Erasure(BaseModel):
    """The user after its erasure; `again`: it was erased before, and nothing changed."""

    external_id: str
    again: bool


class SessionItem(BaseModel):
    """A browser session of one of the user's keys."""

    id: UUID
    key_id: UUID
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class MembershipItem(BaseModel):
    """A membership of the user, with what the identity provider calls the person."""

    id: UUID
    tenant_id: UUID
    email: str
    role: str
    oidc_issuer: str | None
    oidc_subject: str | None
    created_at: datetime
    removed_at: datetime | None


class Exported(BaseModel):
    """Everything known about a user."""

    user: UserItem
    keys: list[KeyItem]
    members: list[MembershipItem]
    sessions: list[SessionItem]
    audit: list[AuditItem]
    usage: list[DayUsage]
    requests: list[RequestItem]
