"""The page of one user: its keys, those that ended folded away, and its limits."""

from typing import Any
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.pages.account import wording
from api.pages.account.frame import NOTHING_TYPED, Typed, filled, own, show
from api.pages.site import number
from api.pages.visitor import Visitor
from api.routes.admin.keys import KeyItem, keys_of_user
from api.routes.admin.limits import LimitsSet, user_limits
from api.routes.admin.scope import GRANTABLE, reach_user
from api.runtime import Runtime
from core.clock import now_ms, to_ms
from core.errors import NotFound
from core.tenancy.models import ApiKey
from core.tenancy.principal import Forbidden
from metering.models import PriceRow

_SIZE = 50
_MICRO = 1_000_000
OVERLAPS = {"86400": "in a day", "604800": "in a week", "3600": "in an hour", "0": "at once"}
"""When a key ends that was rotated, by the seconds."""
FORM_METERS = ("requests", "tokens", "spend")
"""What the form always asks for; another meter appears where it was set."""


async def person_page(
    request: Request,
    runtime: Runtime,
    visitor: Visitor,
    user_id: UUID,
    *,
    cursor: UUID | None = None,
    key_form: Typed = NOTHING_TYPED,
    limits_form: Typed | None = None,
    **context: Any,
) -> Response:
    """The page, as it is, or with a form that was refused. Raises NotFound for another tenant's user."""
    principal = own(visitor)
    keys = await keys_of_user(user_id, principal, runtime, cursor, _SIZE)
    limits = await user_limits(user_id, principal, runtime)
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        user = await reach_user(session, principal, user_id)
        models = await _models(session, visitor)
    at_ms = now_ms()
    form = limits_of(limits) if limits_form is None else limits_form
    meters = [*FORM_METERS, *sorted({one.meter.value for one in limits.limits} - {*FORM_METERS})]
    return show(
        request,
        "user",
        visitor,
        **context,
        user=user,
        good=[key for key in keys.items if _is_good(key, at_ms)],
        ended=[key for key in keys.items if not _is_good(key, at_ms)],
        more_keys=keys.next,
        here_by=visitor.principal.key_id,
        grantable=GRANTABLE,
        scopes=_scopes(visitor),
        overlaps=OVERLAPS,
        models=models,
        key_form=key_form,
        limits=limits,
        limits_form=form,
        meters=meters,
        wording=wording,
    )


async def find_own_key(runtime: Runtime, visitor: Visitor, key_id: UUID) -> ApiKey:
    """A key of the visitor's tenant. Raises NotFound, and Forbidden for one that only the operator's tools touch."""
    query = select(ApiKey).where(ApiKey.tenant_id == visitor.principal.tenant_id, ApiKey.id == key_id)
    async with runtime.database.session(tenant_id=visitor.principal.tenant_id) as session:
        key = await session.scalar(query)
    if key is None:
        raise NotFound("no such key")
    if not GRANTABLE.issuperset(key.scopes):
        raise Forbidden("a key of the operator's is not handled here: use the command line")
    return key


def limits_of(limits: LimitsSet) -> Typed:
    """The form that shows what holds: spend in dollars."""
    values = {f"{one.meter.value}-{one.window.value}": written(one.meter.value, one.limit) for one in limits.limits}
    at_once = None if limits.concurrency is None else str(limits.concurrency)
    return filled({**values, "concurrency": at_once})


def written(meter: str, limit: int) -> str:
    """A limit as it is typed: micro-USD are dollars, as far as they have digits."""
    if meter != "spend":
        return number(limit)
    whole, rest = divmod(limit, _MICRO)
    return f"{whole}.{f'{rest:06d}'.rstrip('0').ljust(2, '0')}"


def _is_good(key: KeyItem, at_ms: int) -> bool:
    return key.revoked_at is None and (key.expires_at is None or to_ms(key.expires_at) > at_ms)


def _scopes(visitor: Visitor) -> dict[str, tuple[str, str]]:
    """The scopes that a key made by this visitor may have: those of the visitor's own key, or all for the operator."""
    principal = visitor.principal
    return {
        scope: said
        for scope, said in wording.SCOPES.items()
        if principal.is_platform_admin or scope in principal.scopes
    }


async def _models(session: AsyncSession, visitor: Visitor) -> list[str]:
    """Those that have a price (a key for another could not be used) and that the visitor's key may use."""
    allowed = visitor.principal.models
    priced = await session.scalars(select(PriceRow.model).distinct())
    return sorted(model for model in priced if allowed is None or model in allowed)
