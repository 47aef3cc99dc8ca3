"""The tables of tenancy. `tenant_id` comes first in every primary key, so the schema can be sharded by tenant."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, LargeBinary, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from core.postgres.database import Base

TimestampTz = TIMESTAMP(timezone=True)


class Tenant(Base):
    """A customer of the operator. `plan_code` and `plan_version` are its current plan, if any.

    `makes_users`: whether a request that names an unknown user creates it, at most `new_users_per_minute`.
    """

    __tablename__ = "tenants"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    plan_code: Mapped[str | None] = mapped_column(Text)
    plan_version: Mapped[int | None]
    makes_users: Mapped[bool] = mapped_column(server_default="true")
    new_users_per_minute: Mapped[int] = mapped_column(server_default="600")
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())


class User(Base):
    """An end user or service of a tenant; `external_id` is the tenant's own identifier.

    No request opens for a user that is disabled.
    """

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("tenant_id", "external_id"), Index(None, "id"))

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    erased_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    disabled_at: Mapped[datetime | None] = mapped_column(TimestampTz)


class ApiKey(Base):
    """An API key: its SHA-256, visible prefix, scopes, models and expiry.

    `parent_key_id`: the key it was created with, possibly of another tenant (an operator's); None from the command
    line. `predecessor_key_id`: the key it replaced in a rotation.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"]),
        Index(None, "hash"),
        Index(None, "id"),
        Index(None, "tenant_id", "user_id"),
        Index(None, "parent_key_id", postgresql_where="parent_key_id IS NOT NULL"),
        Index(None, "predecessor_key_id", postgresql_where="predecessor_key_id IS NOT NULL"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(Text)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    prefix: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    models: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    expires_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    revoked_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    parent_key_id: Mapped[UUID | None]
    predecessor_key_id: Mapped[UUID | None]


class KeyUse(Base):
    """The last use of a key, to ten minutes. Not a column of the key, whose row every open share-locks."""

    __tablename__ = "key_uses"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    key_id: Mapped[UUID] = mapped_column(primary_key=True)
    last_used_at: Mapped[datetime] = mapped_column(TimestampTz)


class WebSession(Base):
    """The session of a browser that signed in with a key; it has the key's rights until either ends."""

    __tablename__ = "web_sessions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "key_id"], ["api_keys.tenant_id", "api_keys.id"]),
        Index(None, "hash"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    key_id: Mapped[UUID]
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(TimestampTz)
    ended_at: Mapped[datetime | None] = mapped_column(TimestampTz)


class TokenSecret(Base):
    """A secret that short-lived tokens are signed with. The newest one signs; one that is retired verifies no more."""

    __tablename__ = "token_secrets"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    retired_at: Mapped[datetime | None] = mapped_column(TimestampTz)


class Issuer(Base):
    """An issuer of JWTs that a tenant trusts for its own users. What they may do is at most what its key may.

    `verification_keys`: the URL of a JWKS, or a public key in PEM. `user_claim` names the user; `tag_claims` gives the
    tag for a claim (`{"team": "feature"}`); `scopes_claim`, if any, names those of `scopes` that a token has. An issuer
    and audience belong to one tenant. A row never changes but for `removed_at`.
    """

    __tablename__ = "issuers"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "key_id"], ["api_keys.tenant_id", "api_keys.id"]),
        Index("uq_issuers_issuer_audience", "issuer", "audience", unique=True, postgresql_where="removed_at IS NULL"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    key_id: Mapped[UUID]
    issuer: Mapped[str] = mapped_column(Text)
    audience: Mapped[str] = mapped_column(Text)
    verification_keys: Mapped[str] = mapped_column(Text)
    user_claim: Mapped[str] = mapped_column(Text)
    tag_claims: Mapped[dict[str, str]] = mapped_column(JSONB, server_default="{}")
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    scopes_claim: Mapped[str | None] = mapped_column(Text)
    leeway_s: Mapped[int] = mapped_column(server_default="30")
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    removed_at: Mapped[datetime | None] = mapped_column(TimestampTz)


class Member(Base):
    """A person who signs in at the operator's identity provider, with a role in the tenant.

    The rights are those of its key, whose secret nobody has; sessions are of that key. `by_claim`: the provider says at
    each sign-in whether the person is a member, and with which role.
    """

    __tablename__ = "members"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "key_id"], ["api_keys.tenant_id", "api_keys.id"]),
        Index("uq_members_tenant_id_email", "tenant_id", "email", unique=True, postgresql_where="removed_at IS NULL"),
        Index(None, "oidc_issuer", "oidc_subject", postgresql_where="removed_at IS NULL"),
        Index(None, "email", postgresql_where="removed_at IS NULL AND oidc_subject IS NULL"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    key_id: Mapped[UUID]
    email: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    oidc_issuer: Mapped[str | None] = mapped_column(Text)
    oidc_subject: Mapped[str | None] = mapped_column(Text)
    by_claim: Mapped[bool] = mapped_column(server_default="false")
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    removed_at: Mapped[datetime | None] = mapped_column(TimestampTz)


class Invitation(Base):
    """An invitation by a link, whose token is stored as its SHA-256. It makes one member, once."""

    __tablename__ = "invitations"
    __table_args__ = (Index("uq_invitations_hash", "hash", unique=True),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    actor: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(TimestampTz)
    accepted_at: Mapped[datetime | None] = mapped_column(TimestampTz)
    revoked_at: Mapped[datetime | None] = mapped_column(TimestampTz)


class AuditEntry(Base):
    """One admin change: actor, action, before, after. Never updated, and without secrets."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "id"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(TimestampTz, server_default=func.now())
    actor: Mapped[str] = mapped_column(Text)
    actor_key_id: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    request_id: Mapped[str | None] = mapped_column(Text)
