"""The form of a user's limits: requests, tokens or dollars a minute, a day, a billing period."""

from decimal import Decimal, InvalidOperation
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import REFUSALS, FormDep, Refused, Typed, leave_refused, parsed, refused
from api.pages.account.people import LIMITS_FORM
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.routes.parameters import UserId
from api.schemas.accounts.limits import Limits
from api.services.accounts import limits
from metering.quota.limits import MAX_LIMIT, METERS, WINDOWS

router = page_router("/account/keys")
_MICRO = 1_000_000
_DIGITS = 20
_WRONG = "Enter a whole number from 0, or an amount in dollars for model cost. Leave a field empty for no limit."
_SENTENCES = {"limits": _WRONG, "concurrency": "Enter a whole number of concurrent requests, or leave the field empty."}


@router.post("/{user_id}/limits")
async def set_limits(request: Request, user_id: UserId, visitor: AccountAdmin, form: FormDep) -> Response:
    """Replaces the user's limits. Raises NotFound for another tenant's user."""
    try:
        body = parsed(Limits, _values(form), _SENTENCES)
        await limits.set_user_limits(visitor.account_context, user_id, body)
    except REFUSALS as error:
        typed, status = refused(form, error)
        return leave_refused(request, f"/account/keys/{user_id}", typed, status, form=LIMITS_FORM)
    return see_other(f"/account/keys/{user_id}?said=limits")


def _values(form: Typed) -> dict[str, Any]:
    """The fields of `Limits`. Raises Refused."""
    values = [
        {"meter": meter.value, "window": window.value, "limit": _limit(meter.value, typed)}
        for meter in METERS
        for window in WINDOWS
        if (typed := form.text(f"{meter.value}-{window.value}"))
    ]
    at_once = form.text("concurrency")
    return {"limits": values, "concurrency": _whole(at_once, "concurrency") if at_once else None}


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
        raise Refused({field: _SENTENCES[field]})
    return int(digits)
