"""API keys: made for a user, shown once, rotated with an overlap, ended at once.

Nobody climbs by way of a key: an admin makes, rotates (which shows a new secret) and ends only keys whose scopes it
could hand out itself.
"""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.routes.access import RuntimeDep, TenantAdmin, actor_of, tenant_filter
from api.routes.admin.fields import EXAMPLE_ID, Body, ModelName, Moment, Text, example
from api.routes.admin.pages import DEFAULT_SIZE, Cursor, Page, PageSize, page
from api.routes.admin.scope import UserId, reach_user, require_grantable
from core.settings import Settings
from core.tenancy.accounts import DEFAULT_SCOPES, create_key, find_key, revoke_key, rotate_key
from core.tenancy.audit import Actor
from core.tenancy.keys import NewKey as Secret
from core.tenancy.lists import list_keys
from core.tenancy.models import ApiKey, User
from core.tenancy.principal import Scope
from metering.prices import require_priced

router = APIRouter()
MAX_OVERLAP_S = 30 * 86_400
_MAX_MODELS = 100

KeyId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]


class NewKey(Body):
    """A key: `models` null allows every model, `expires_at` null never ends."""

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

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """As it is answered."""
        return cls.model_validate(key, from_attributes=True)


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
    return page(rows, size, KeyItem.of)


@router.delete("/keys/{key_id}", status_code=204)
async def end_key(key_id: KeyId, principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> None:
    """End a key at once. Ending it again changes nothing."""
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        key = await find_key(session, key_id, tenant_id=tenant_filter(principal))
        require_grantable(principal, key.scopes)
        await revoke_key(session, actor_of(request, principal), key)
    await runtime.changes.publish(key.tenant_id)


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
