"""Shapes of a short-lived token."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from api.schemas.fields import Body, LimitValue, ModelName, UserName, example
from core.identity.token_secrets import MAX_TTL_S
from core.network.addresses import normal_origin
from metering.tags.tags import MAX_TAGS

_MIN_TTL_S = 60
_MAX_MODELS = 100
_MAX_ORIGINS = 20


def _one_origin(origin: str) -> str:
    """An origin as browsers send it. A token for every origin has no `origins`."""
    if origin == "*":
        raise ValueError("leave origins out to allow every origin")
    return normal_origin(origin)


Origin = Annotated[str, StringConstraints(max_length=300), AfterValidator(_one_origin)]
TagText = Annotated[str, StringConstraints(max_length=400)]


class TokenLimits(Body):
    """The most that all requests of the token use in its life; `spend` in micro-USD. Null: no limit of its own."""

    requests: LimitValue | None = None
    tokens: LimitValue | None = None
    spend: LimitValue | None = None

    @property
    def budget(self) -> dict[str, int]:
        """The limits by meter."""
        return self.model_dump(exclude_none=True)


class NewToken(Body):
    """A token for one user, valid for `ttl_s` seconds. It has at most the rights of the key that makes it.

    `models` null: those of the key. `origins`: the pages that may send it, null for any. `limits`: a budget for its
    life. `tags`: of all its requests.
    """

    model_config = example(
        user="ada@acme.example",
        ttl_s=3600,
        models=None,
        limits={"requests": 100, "spend": 2_000_000},
        origins=["https://app.acme.example"],
        tags={"feature": "search"},
    )

    user: UserName
    ttl_s: int = Field(strict=True, ge=_MIN_TTL_S, le=MAX_TTL_S)
    models: list[ModelName] | None = Field(None, min_length=1, max_length=_MAX_MODELS)
    limits: TokenLimits | None = None
    origins: list[Origin] | None = Field(None, min_length=1, max_length=_MAX_ORIGINS)
    tags: dict[TagText, TagText] | None = Field(None, max_length=MAX_TAGS)


class TokenMade(BaseModel):
    """A new token. Nothing is stored, so no later answer contains it."""

    token: str
    expires_at: datetime
    id: str
    """The id under which its usage is added up."""


class SecretRotated(BaseModel):
    """The secret that signs from now on, without itself."""

    id: str
    created_at: datetime
