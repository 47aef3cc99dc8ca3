"""Shapes of an API key."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import Field

from api.schemas.fields import Body, ModelName, Text, example
from api.schemas.moments import Moment
from api.schemas.rows import Row
from core.tenancy.accounts import DEFAULT_SCOPES
from core.tenancy.keys import NewKey as Secret
from core.tenancy.models import ApiKey
from core.tenancy.principal import Scope

MAX_OVERLAP_S = 30 * 86_400
_MAX_MODELS = 100


class NewKey(Body):
    """A key. Scopes, models and expiry are bounded by those of the key that creates it.

    `models` null: every model the creating key may use. `expires_at` null: the creating key's expiry, or none.
    """

    model_config = example(
        name="web frontend", scopes=["chat", "usage:read"], expires_at="2031-01-01T00:00:00Z", models=None
    )

    name: Text
    scopes: list[Scope] = Field(list(DEFAULT_SCOPES), min_length=1, max_length=len(Scope))
    expires_at: Moment | None = None
    models: list[ModelName] | None = Field(None, min_length=1, max_length=_MAX_MODELS)


class Rotation(Body):
    """Seconds for which the old key stays valid beside its successor; 0 ends it now."""

    model_config = example(overlap_s=86_400)

    overlap_s: int = Field(0, strict=True, ge=0, le=MAX_OVERLAP_S)


class KeyItem(Row):
    """A key without its secret; `prefix` identifies it to people."""

    id: UUID
    tenant_id: UUID
    user_id: UUID
    name: str
    prefix: str
    scopes: list[str]
    models: list[str] | None
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    parent_key_id: UUID | None
    """The key that created it."""
    last_used_at: datetime | None = None
    """Accurate to ten minutes; null when it was never used."""


class KeyMade(KeyItem):
    """A new key. `key` is the secret; no later answer contains it."""

    key: str

    @classmethod
    def with_secret(cls, made: tuple[ApiKey, Secret]) -> Self:
        """The shape of a row and its secret."""
        return cls.completed(made[0], key=made[1].plaintext)
