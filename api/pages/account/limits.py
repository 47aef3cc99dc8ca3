"""Forms of limits (requests, tokens or dollars a minute, a day, a billing period): of a user, and of all users.

The page of all users also says whether requests create the users that they name.
"""

from decimal import Decimal, InvalidOperation
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import (
    NOTHING_TYPED,
    REFUSALS,
    FormDep,
    Refused,
    Said,
    Typed,
    filled,
    leave_refused,
    parsed,
    refused,
    show,
    taken,
)
from api.pages.account.people import LIMITS_FORM, limits_of, meters_of
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.routes.parameters import UserId
from api.schemas.accounts.limits import Limits
from api.schemas.accounts.tenants import NewUsers
from api.services.accounts import limits, tenants
from core.figures import grouped
from metering.quota.limits import MAX_LIMIT, METERS, WINDOWS

router = page_router("/account")
_DEFAULTS = "/account/user-defaults"
_SAID = {"users": "Saved. It applies from the next request on.", "limits": "Limits saved. They apply from now on."}
_USERS_FORM = "users_form"
_USERS_SENTENCES = {"new_users_per_minute": "Enter a whole number from 0 to 100,000."}
_MICRO = 1_000_000
_DIGITS = 20
_WRONG = "Enter a whole number from 0, or an amount in dollars for model cost. Leave a field empty for no limit."
SENTENCES = {"limits": _WRONG, "concurrency": "Enter a whole number of concurrent requests, or leave the field empty."}


@router.get("/user-defaults")
async def user_defaults(request: Request, visitor: AccountAdmin, said: Said = "") -> Response:
    """The settings of users that requests name, and the limits of each user without its own."""
    typed, status, left = taken(request)
    context, tenant_id, form = visitor.account_context, visitor.principal.tenant_id, left.get("form")
    found, known = (
        await limits.find_default_limits(context, tenant_id),
        await tenants.find_new_users(context, tenant_id),
    )
    stored = filled(
        {
            "makes_users": "yes" if known.makes_users else None,
            "new_users_per_minute": grouped(known.new_users_per_minute),
        }
    )
    is_refused = typed is not NOTHING_TYPED
    return show(
        request,
        "user_defaults",
        visitor,
        said=_SAID.get(said, ""),
        status=status,
        typed=NOTHING_TYPED if form in (_USERS_FORM, LIMITS_FORM) else typed,
        users_form=typed if is_refused and form == _USERS_FORM else stored,
        limits=found,
        limits_form=typed if is_refused and form == LIMITS_FORM else limits_of(found),
        meters=meters_of(found, visitor),
    )


@router.post("/user-defaults")
async def set_new_users(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Sets whether requests create users, and how many a minute."""
    try:
        digits = form.text("new_users_per_minute").replace(",", "")
        number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS else -1
        values = {"makes_users": bool(form.text("makes_users")), "new_users_per_minute": number}
        body = parsed(NewUsers, values, _USERS_SENTENCES)
        await tenants.set_new_users(visitor.account_context, visitor.principal.tenant_id, body)
    except REFUSALS as error:
        typed, status = refused(form, error)
        return leave_refused(request, _DEFAULTS, typed, status, form=_USERS_FORM)
    return see_other(f"{_DEFAULTS}?said=users")


@router.post("/user-defaults/limits")
async def set_default_limits(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Replaces the limits of each user without its own."""
    try:
        body = parsed(Limits, _set_of(form), SENTENCES)
        await limits.set_default_limits(visitor.account_context, visitor.principal.tenant_id, body)
    except REFUSALS as error:
        typed, status = refused(form, error)
        return leave_refused(request, _DEFAULTS, typed, status, form=LIMITS_FORM)
    return see_other(f"{_DEFAULTS}?said=limits")


@router.post("/keys/{user_id}/limits")
async def set_limits(request: Request, user_id: UserId, visitor: AccountAdmin, form: FormDep) -> Response:
    """Replaces the user's limits. Raises NotFound for another tenant's user."""
    try:
        body = parsed(Limits, _set_of(form), SENTENCES)
        await limits.set_user_limits(visitor.account_context, user_id, body)
    except REFUSALS as error:
        typed, status = refused(form, error)
        return leave_refused(request, f"/account/keys/{user_id}", typed, status, form=LIMITS_FORM)
    return see_other(f"/account/keys/{user_id}?said=limits")


def _set_of(form: Typed) -> dict[str, Any]:
    """The fields of `Limits`. Raises Refused."""
    at_once = form.text("concurrency")
    return {"limits": limit_values(form), "concurrency": _whole(at_once, "concurrency") if at_once else None}


def limit_values(form: Typed) -> list[dict[str, Any]]:
    """The limits of a form (`limit_grid` in `pieces.html`), without its empty fields. Raises Refused."""
    return [
        {"meter": meter.value, "window": window.value, "limit": _limit(meter.value, typed)}
        for meter in METERS
        for window in WINDOWS
        if (typed := form.text(f"{meter.value}-{window.value}"))
    ]


def _limit(meter: str, typed: str) -> int:
    """A limit in its unit; dollars become micro-USD."""
    if meter != "spend":
        return _whole(typed, "limits")
    try:
        exact = Decimal(typed.replace(",", "").removeprefix("$")[:_DIGITS]) * _MICRO
        if not exact.is_finite() or exact != exact.to_integral_value() or not 0 <= exact <= MAX_LIMIT:
            raise Refused({"limits": _WRONG})
    except InvalidOperation:
        raise Refused({"limits": _WRONG}) from None
    return int(exact)


def _whole(typed: str, field: str) -> int:
    digits = typed.replace(",", "")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS):
        raise Refused({field: SENTENCES[field]})
    return int(digits)
