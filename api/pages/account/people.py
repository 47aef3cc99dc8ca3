"""The page of one user: its keys, with ended ones folded away, and its limits."""

from typing import Any
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response

from api.pages.account import wording
from api.pages.account.frame import NOTHING_TYPED, Typed, filled, show
from api.pages.visitor import Visitor
from api.schemas.accounts.keys import KeyItem
from api.schemas.accounts.limits import LimitsSet
from api.services.accounts import users
from api.services.accounts.lookups import GRANTABLE
from core.clock import now_ms, to_ms
from core.figures import grouped
from core.tenancy.derivation import grantable_scopes
from metering.quota.limits import Meter

KEY_FORM, LIMITS_FORM = "key_form", "limits_form"
_SIZE = 50
_MICRO = 1_000_000
OVERLAPS = {"86400": "in a day", "604800": "in a week", "3600": "in an hour", "0": "at once"}
"""The end of a rotated key, in seconds from now."""
FORM_METERS = ("requests", "tokens", "spend")
"""Meters that the form always shows, spend to those who see its amounts; others appear once they have a limit."""


async def person_page(
    request: Request,
    visitor: Visitor,
    user_id: UUID,
    *,
    cursor: UUID | None,
    typed: Typed,
    form: Any,
    **context: Any,
) -> Response:
    """The page. `typed` was refused: of the form for a key or for limits, else above the page. Raises NotFound.

    `form` names it. It comes from a cookie, so it can be anything.
    """
    found = await users.describe_user(visitor.account_context, user_id, after=cursor, size=_SIZE)
    limits, keys = found.limits, found.keys
    at_ms = now_ms()
    is_refused = typed is not NOTHING_TYPED
    active = [key for key in keys.items if _is_active(key, at_ms)]
    return show(
        request,
        "user",
        visitor,
        **context,
        typed=NOTHING_TYPED if form in (KEY_FORM, LIMITS_FORM) else typed,
        user=found.user,
        active=active,
        may_disable=all(GRANTABLE.issuperset(key.scopes) for key in active),
        ended=[key for key in keys.items if not _is_active(key, at_ms)],
        more_keys=keys.next,
        own_key_id=visitor.principal.key_id,
        grantable=GRANTABLE,
        scopes=_scopes(visitor),
        overlaps=OVERLAPS,
        models=found.models,
        key_form=typed if form == KEY_FORM else NOTHING_TYPED,
        limits=limits,
        limits_form=typed if form == LIMITS_FORM and is_refused else limits_of(limits),
        meters=meters_of(limits, visitor),
    )


def meters_of(limits: LimitsSet, visitor: Visitor) -> list[str]:
    """The meters of a form of limits."""
    always = [meter for meter in FORM_METERS if meter != Meter.SPEND or visitor.context.sees_cost]
    return [*always, *sorted({one.meter.value for one in limits.limits}.difference(always))]


def limits_of(limits: LimitsSet) -> Typed:
    """The form with the limits in force."""
    values = {f"{one.meter.value}-{one.window.value}": written(one.meter.value, one.limit) for one in limits.limits}
    at_once = None if limits.concurrency is None else str(limits.concurrency)
    return filled({**values, "concurrency": at_once})


def written(meter: str, limit: int) -> str:
    """A limit as people type it: spend, in micro-USD, as dollars with no more digits than needed."""
    if meter != "spend":
        return grouped(limit)
    whole, rest = divmod(limit, _MICRO)
    return f"{whole}.{f'{rest:06d}'.rstrip('0').ljust(2, '0')}"


def _is_active(key: KeyItem, at_ms: int) -> bool:
    return key.revoked_at is None and (key.expires_at is None or to_ms(key.expires_at) > at_ms)


def _scopes(visitor: Visitor) -> dict[str, tuple[str, str]]:
    """Scopes that this visitor may grant: those of its own key; for the operator, all."""
    principal = visitor.principal
    granted = grantable_scopes(principal.scopes)
    return {scope: said for scope, said in wording.SCOPES.items() if principal.is_platform_admin or scope in granted}
