"""Coupons: all of them, a new one, and the end of one. Amounts in forms are rupees before GST."""

from datetime import datetime
from typing import Annotated

from fastapi import Form, Path, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from api.pages.once import leave, take
from api.pages.operator.frame import SIZE, Act, Cell, Listing, Row, Said, money, show, with_query
from api.pages.route import page_router
from api.pages.site import Here, see_other, sentence
from api.pages.visitor import Operator
from api.schemas.billing.wallet import CouponCode, CouponItem, NewCoupon
from api.services.billing import wallets
from billing.gst.rupees import in_paise
from core.clock import now_ms, to_ms
from core.errors import Conflict, Invalid

_HERE = "/operator/coupons"
router = page_router(_HERE)
Text = Annotated[str, Form(max_length=100)]
_WORDS = {
    "code": "A code is 3 to 40 of A-Z, 0-9 and hyphens.",
    "paise": "The credit is an amount in rupees, at least ₹0.01.",
    "credit_days": "The credit expires after a number of days, or never.",
    "expires_at": "The last day is a date, as 2027-01-31.",
    "max_uses": "The number of uses is 1 or more, or empty.",
}


@router.get("")
async def coupons(
    request: Request,
    visitor: Operator,
    cursor: Annotated[CouponCode | None, Query()] = None,
    said: Said = "",
) -> Response:
    """Coupons, newest first, and a form for a new one."""
    left, here = take(request), Here(visitor.context.zone)
    found = await wallets.list_coupons(visitor.context, before=cursor, size=SIZE)
    rows = [Row(_cells(each, here), _acts(each)) for each in found.items]
    older = with_query(_HERE, cursor=found.next) if found.next else None
    columns = ["Code", "State", "Credit", "Credit lasts", "Usable until", "Used", "Created"]
    listing = Listing(columns, rows, "No coupons yet. Create the first one below.", older)
    status, typed = left.get("status", 200), left.get("fields", {})
    return show(request, "coupons", visitor, said, status, fault=left.get("fault", ""), typed=typed, listing=listing)


@router.post("")
async def new_coupon(
    request: Request,
    visitor: Operator,
    code: Text = "",
    amount: Text = "",
    days: Text = "",
    until: Text = "",
    uses: Text = "",
) -> Response:
    """Creates a coupon."""
    typed = {"code": code, "amount": amount, "days": days, "until": until, "uses": uses}
    try:
        values = {
            "code": code.strip(),
            "paise": in_paise(amount.strip()),
            "credit_days": _number(days),
            "expires_at": f"{until.strip()}T23:59:59Z" if until.strip() else None,
            "max_uses": _number(uses),
        }
        await wallets.create_coupon(visitor.context, NewCoupon.model_validate(values))
    except (ValidationError, Invalid, Conflict) as error:
        return leave(request, _HERE, status=422, fault=_words(error), fields=typed)
    return see_other(f"{_HERE}?said=coupon")


@router.post("/{coupon}/end")
async def end_coupon(coupon: Annotated[CouponCode, Path()], visitor: Operator) -> Response:
    """Ends a coupon now."""
    await wallets.end_coupon(visitor.context, coupon)
    return see_other(f"{_HERE}?said=ended")


def _cells(each: CouponItem, here: Here) -> list[Cell]:
    most = "" if each.max_uses is None else f" of {each.max_uses}"
    return [
        Cell(each.code),
        Cell("active" if _is_active(each) else "ended", is_state=True),
        money(each.paise),
        Cell("for good" if each.credit_days is None else f"{each.credit_days} days"),
        Cell("any time" if each.expires_at is None else here.at(each.expires_at)),
        Cell(f"{each.uses}{most}", is_number=True),
        Cell(here.day(each.created_at)),
    ]


def _acts(each: CouponItem) -> list[Act]:
    if not _is_active(each):
        return []
    question = f"End {each.code}? Nobody can redeem it any more; credit that it gave stays."
    return [Act("End", question, f"{_HERE}/{each.code}/end", is_grave=True)]


def _is_active(each: CouponItem) -> bool:
    is_used_up = each.max_uses is not None and each.uses >= each.max_uses
    return not is_used_up and (each.expires_at is None or to_ms(datetime.fromisoformat(each.expires_at)) > now_ms())


def _number(text: str) -> int | str | None:
    """A whole number; text that is none is left to the schema, which refuses it."""
    return int(text) if text.strip().isascii() and text.strip().isdigit() else text.strip() or None


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return " ".join(_WORDS[str(fault["loc"][0])] for fault in error.errors())
    return sentence(str(error))
