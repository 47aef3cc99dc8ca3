"""The wallet: balance, adding money, coupons, the low-balance alert, automatic top-ups, and movements.

Amounts in forms are rupees before GST. Postgres down: 503 in words; Razorpay down: the top-up's link appears later.
"""

import re

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import (
    NOTHING_TYPED,
    FormDep,
    Refused,
    Said,
    Typed,
    filled,
    parsed,
    perform,
    show,
    taken,
)
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.routes.parameters import Cursor
from api.schemas.billing.wallet import NewTopUp, Redemption, WalletRules, WalletSettingsItem
from api.services.billing import wallets
from api.services.billing.profiles import has_profile
from billing.documents.qr import qr_path
from billing.gst.rupees import in_paise, plain_rupees
from billing.prepaid.top_ups import MAX_PAISE, MIN_PAISE

_HERE = "/account/wallet"
router = page_router(_HERE)
_SIZE = 25
_SAID = {
    "added": "Pay the top-up to add it to your balance.",
    "redeemed": "The coupon's credit is added.",
    "saved": "Settings saved.",
}
_KINDS = {
    "top_up": "Top-up",
    "promotion": "Promotional credit",
    "usage": "Usage",
    "expiry": "Expired credit",
    "refund": "Refund",
    "adjustment": "Adjustment",
}
_RUPEES = re.compile(r"[0-9]{1,9}(\.[0-9]{1,2})?")
"""At most two decimals: no part of a paisa, and no doubt what a third one means."""
_TOP_UP = f"An amount of {MIN_PAISE // 100} to {MAX_PAISE // 100} rupees."
_AMOUNT = "An amount in rupees, such as 500 or 499.50."


@router.get("")
async def wallet_page(request: Request, visitor: AccountAdmin, said: Said = "", cursor: Cursor = None) -> Response:
    """The balance and its movements."""
    context = visitor.account_context
    typed, status, _ = taken(request)
    wallet = await wallets.find_wallet(context)
    waits = [one for one in wallet.open_top_ups if not one.is_automatic]
    return show(
        request,
        "wallet",
        visitor,
        status=status,
        said=_SAID.get(said, ""),
        typed=_stored(wallet.settings) if typed is NOTHING_TYPED else typed,
        wallet=wallet,
        waiting=waits[0] if waits else None,
        code=qr_path(waits[0].upi_link) if waits and waits[0].upi_link else None,
        on_its_way=sum(one.paise for one in wallet.open_top_ups if one.is_automatic),
        entries=await wallets.list_entries(context, before=cursor, size=_SIZE),
        kinds=_KINDS,
    )


@router.post("/top-ups")
async def add_money(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Creates a top-up. Without a billing profile it asks for that first."""
    context = visitor.account_context
    if not await has_profile(context):
        return see_other("/account/profile")

    async def add() -> None:
        values = {"paise": _paise(form, "paise"), "instrument": "qr_code" if form.text("by_qr") else "payment_link"}
        body = parsed(NewTopUp, values, {"paise": _TOP_UP})
        await wallets.top_up(context, body)

    return await perform(request, _HERE, add, "added", form=form, field="paise")


@router.post("/coupons")
async def redeem(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Redeems a coupon."""

    async def use() -> None:
        body = parsed(Redemption, {"code": form.text("code")}, {"code": "This is not a coupon's code."})
        await wallets.redeem(visitor.account_context, body)

    return await perform(request, _HERE, use, "redeemed", form=form, field="code")


@router.post("/settings")
async def set_rules(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Sets the alert and automatic top-ups."""

    async def save() -> None:
        names = WalletRules.model_fields
        values = {name: _paise(form, name) if form.text(name) else None for name in names}
        body = parsed(WalletRules, values, dict.fromkeys(names, _AMOUNT) | {"top_up_paise": _TOP_UP})
        await wallets.set_rules(visitor.account_context, body)

    return await perform(request, _HERE, save, "saved", form=form, field="top_up_paise")


def _paise(form: Typed, name: str) -> int:
    """An amount in rupees as paise. Raises Refused."""
    typed = form.text(name).replace(",", "").removeprefix("₹").strip()
    if _RUPEES.fullmatch(typed) is None:
        raise Refused({name: _AMOUNT})
    return in_paise(typed)


def _stored(rules: WalletSettingsItem) -> Typed:
    """The settings as typed: `500` or `499.50`."""
    stored = rules.model_dump()
    return filled(
        {name: None if paise is None else plain_rupees(paise).removesuffix(".00") for name, paise in stored.items()}
    )
