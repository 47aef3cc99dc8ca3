"""Shapes of a user."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.accounts.keys import KeyItem
from api.schemas.accounts.limits import LimitsSet
from api.schemas.fields import Body, UserName, example
from api.schemas.pages import Page
from api.schemas.rows import Row


class NewUser(Body):
    """A user, under the tenant's own name for it."""

    model_config = example(external_id="user-4711")

    external_id: UserName


class UserState(Body):
    """Whether a user is disabled."""

    model_config = example(disabled=True)

    disabled: bool = Field(strict=True)


class UserItem(Row):
    """A user of a tenant."""

    id: UUID
    tenant_id: UUID
    external_id: str
    created_at: datetime
    erased_at: datetime | None
    """The time of the person's erasure; usage and bills stay under a pseudonym."""
    disabled_at: datetime | None
    """Since when requests of the user are refused; null while it is enabled."""


class UserWithKeys(UserItem):
    """A user and its number of active keys."""

    active_keys: int = 0


class UserDetail(BaseModel):
    """A user with its keys and limits, and the models that a new key may be restricted to."""

    user: UserItem
    keys: Page[KeyItem]
    limits: LimitsSet
    models: list[str]
