"""API keys: made for a user, shown once, rotated with an overlap, ended at once.

A key made or rotated with a key has at most that one's rights: `core.tenancy.derivation`. Here an admin of a tenant is
also kept from the operator's keys.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep, TenantAdmin, actor_of, tenant_filter
from api.routes.admin.scope import reach_user, require_grantable
from api.routes.parameters import Cursor, PageSize, UserId
from api.schemas.fields import EXAMPLE_ID, Body, ModelName, Text, example
from api.schemas.moments import Moment
from api.schemas.pages import DEFAULT_SIZE, Page, page
from core.settings import Settings
from core.tenancy.accounts import DEFAULT_SCOPES, create_key, find_key, revoke_key, revoke_tree, rotate_key
from core.tenancy.audit import Actor
from core.tenancy.keys import NewKey as Secret
from core.tenancy.lists import list_keys
from core.tenancy.models import ApiKey, User
from core.tenancy.principal import Scope
from core.tenancy.traces import last_uses
from metering.pricing.price_list import require_priced

router = APIRouter()
MAX_OVERLAP_S = 30 * 86_400
_MAX_MODELS = 100

KeyId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
Descendants = Annotated[bool, Query(description="Also end every key that was derived from it")]


class NewKey(Body):
    """A key. It may do no more, with no more models and for no longer, than the key that it is made with.

    `models` null: every model that the maker may use. `expires_at` null: it ends when the maker does, or never.
    """

    model_config = example(
        name="web frontend", scopes=["chat", "usage:read"], expires_at="2031-01-01T00:00:00Z", models=None
    )

    name: Text
    scopes: list[Scope] = Field(list(DEFAULT_SCOPES), min_length=1, max_length=len(Scope))
    expires_at: Moment | None = None
    models: list[ModelName] | None = Field(None, min_length=1, max_length=_MAX_MODELS)


class Rotation(Body):
    """For how long the old key goes on beside its successor; 0 ends it now."""

    model_config = example(overlap_s=86_400)

    overlap_s: int = Field(0, strict=True, ge=0, le=MAX_OVERLAP_S)


class KeyItem(BaseModel):
    """A key, but for what could authenticate; `prefix` is how a person tells it from others."""

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
    """The key that it was made with."""
    last_used_at: datetime | None = None
    """To ten minutes; null when it was never used."""

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """As it is answered."""
        return cls.model_validate(key, from_attributes=True)

    @classmethod
    async def listed(cls, session: AsyncSession, keys: Sequence[ApiKey]) -> "list[Self]":
        """As they are listed: with when each was last used."""
        used = await last_uses(session, keys)
        return [cls.of(key).model_copy(update={"last_used_at": used.get(key.id)}) for key in keys]


class KeyMade(KeyItem):
    """A key just made. `key` is the secret itself: it is shown here and nowhere else, ever."""

    key: str

    @classmethod
    def with_secret(cls, made: tuple[ApiKey, Secret]) -> Self:
        """As it is answered, once."""
        return cls(**KeyItem.of(made[0]).model_dump(), key=made[1].plaintext)


async def issue_key(
    session: AsyncSession, actor: Actor, user: User, new: NewKey, settings: Settings
) -> tuple[ApiKey, Secret]:
    """Makes the key. Raises UnknownModel for a model without a price, Invalid for an expiry in the past."""
    await require_priced(session, new.models or ())
    return await create_key(
        session,
        actor,
        user,
        name=new.name,
        scopes=new.scopes,
        models=new.models,
        expires_at=new.expires_at,
        live=is_live(settings),
    )


def is_live(settings: Settings) -> bool:
    """Whether a key's prefix says `live`: one look at it tells where it belongs."""
    return settings.naka_env == "production"


@router.post("/users/{user_id}/keys", status_code=201)
async def new_key(
    user_id: UserId, body: NewKey, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> KeyMade:
    """Make a key of a user. The answer alone has the secret."""
    require_grantable(principal, body.scopes)
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        user = await reach_user(session, principal, user_id)
        made = await issue_key(session, actor_of(request, principal), user, body, runtime.settings)
    await runtime.changes.publish(user.tenant_id)
    return KeyMade.with_secret(made)


@router.get("/users/{user_id}/keys")
async def keys_of_user(
    user_id: UserId,
    principal: TenantAdmin,
    runtime: RuntimeDep,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[KeyItem]:
    """The keys of a user, oldest first, ended ones too."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        user = await reach_user(session, principal, user_id)
        rows = await list_keys(session, user, after=cursor, limit=size + 1)
        items = await KeyItem.listed(session, rows)
    return page(items, size, lambda item: item)


@router.delete("/keys/{key_id}", status_code=204)
async def end_key(
    key_id: KeyId, principal: TenantAdmin, runtime: RuntimeDep, request: Request, *, descendants: Descendants = False
) -> None:
    """End a key at once. Ending it again changes nothing. Without `descendants`, keys derived from it go on."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        key = await find_key(session, key_id, tenant_id=tenant_filter(principal))
        require_grantable(principal, key.scopes)
        ended = await end_keys(session, actor_of(request, principal), key, descendants=descendants)
    for tenant_id in {key.tenant_id, *(each.tenant_id for each in ended)}:
        await runtime.changes.publish(tenant_id)


async def end_keys(session: AsyncSession, actor: Actor, key: ApiKey, *, descendants: bool) -> list[ApiKey]:
    """Ends the key, and with `descendants` those derived from it; the keys that may have changed."""
    if descendants:
        return await revoke_tree(session, actor, key)
    await revoke_key(session, actor, key)
    return [key]


@router.post("/keys/{key_id}/rotate", status_code=201)
async def rotation(
    key_id: KeyId, body: Rotation, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> KeyMade:
    """Make a successor of a key, with the same rights; the old one ends after the overlap."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        key = await find_key(session, key_id, tenant_id=tenant_filter(principal))
        require_grantable(principal, key.scopes)
        actor, live = actor_of(request, principal), is_live(runtime.settings)
        made = await rotate_key(session, actor, key, overlap_s=body.overlap_s, live=live)
    await runtime.changes.publish(key.tenant_id)
    return KeyMade.with_secret(made)
