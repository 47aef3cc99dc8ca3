"""Shapes of an issuer: whose JWTs are accepted for a tenant's users."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from api.schemas.fields import Body, ModelName, Text, example
from api.schemas.rows import Row
from core.identity.issuers import MAX_LEEWAY_S, MAX_TAG_CLAIMS
from core.tenancy.accounts import DEFAULT_SCOPES
from core.tenancy.principal import Scope

_MAX_MODELS = 100
TagKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")]
VerificationKeys = Annotated[str, StringConstraints(min_length=8, max_length=2000, pattern=r"^[!-~][ -~\r\n]*$")]
"""A URL, or a public key in PEM, which has line breaks."""


class NewIssuer(Body):
    """An issuer, and what its tokens say and allow.

    `verification_keys`: the URL of its JWKS, or one public key in PEM. `audience`: the `aud` of its tokens for this
    service. `user_claim`: the claim that names the user. `tag_claims`: the tag of a claim; in both, `a.b` is the claim
    `b` of the object `a`. `scopes_claim`: the claim that names which of `scopes` a token has; null: all.
    """

    model_config = example(
        issuer="https://login.example.com/",
        audience="naka",
        verification_keys="https://login.example.com/.well-known/jwks.json",
        user_claim="sub",
        tag_claims={"metadata.team": "team"},
        scopes=["chat", "usage:read"],
        scopes_claim=None,
        leeway_s=30,
        models=None,
    )

    issuer: Text
    audience: Text
    verification_keys: VerificationKeys
    user_claim: Text = "sub"
    tag_claims: dict[Text, TagKey] = Field({}, max_length=MAX_TAG_CLAIMS)
    scopes: list[Scope] = Field(list(DEFAULT_SCOPES), min_length=1, max_length=len(Scope))
    scopes_claim: Text | None = None
    leeway_s: int = Field(30, strict=True, ge=0, le=MAX_LEEWAY_S)
    models: list[ModelName] | None = Field(None, min_length=1, max_length=_MAX_MODELS)


class IssuerItem(Row):
    """A registered issuer. Revoking its key (`key_id`) ends its tokens, as removing it does."""

    id: UUID
    tenant_id: UUID
    key_id: UUID
    issuer: str
    audience: str
    verification_keys: str
    user_claim: str
    tag_claims: dict[str, str]
    scopes: list[str]
    scopes_claim: str | None
    leeway_s: int
    created_at: datetime
    removed_at: datetime | None
