"""The wallet of a tenant: balance, what it consists of, movements, credit and refunds by the operator.

Amounts in forms are rupees before GST. Razorpay down: a refund is sent later.
"""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Request
from fastapi.responses import Response
from pydantic import ValidationError

from api.pages.once import leave, take
from api.pages.operator.frame import Cell, Listing, Reason, Row, Said, money, show, with_query
from api.pages.operator.money import given
from api.pages.route import page_router
from api.pages.site import Here, see_other, sentence, words
from api.pages.visitor import Operator, Visitor
from api.routes.parameters import Cursor, TenantId
from api.schemas.billing.wallet import NewWalletCredit, WalletRefund, WalletView
from api.services.accounts.tenants import find_tenant
from api.services.billing import wallets
from billing.gst.rupees import in_paise
from core.errors import Conflict, Invalid

router = page_router("/operator/tenants")
Text = Annotated[str, Form(max_length=100)]
_SIZE = 25
_WORDS = {"paise": "This is not an amount that a wallet takes.", "days": "The number of days is 1 to 3,650, or empty."}


@router.get("/{tenant_id}/wallet")
async def wallet_page(
    request: Request, tenant_id: TenantId, visitor: Operator, cursor: Cursor = None, said: Said = ""
) -> Response:
    """The balance of a tenant and its movements."""
    left, here = take(request), Here(visitor.context.zone)
    wallet = await wallets.find_wallet(visitor.context, tenant_id)
    return show(
        request,
        "wallet",
        visitor,
        said,
        left.get("status", 200),
        fault=left.get("fault", ""),
        typed=left.get("fields", {}),
        tenant=await find_tenant(visitor.context, tenant_id),
        wallet=wallet,
        lots=_lots(wallet, here),
        top_ups=_top_ups(wallet, here),
        entries=await _entries(visitor, tenant_id, cursor, here),
    )


@router.post("/{tenant_id}/wallet/credits")
async def give_credit(
    request: Request, tenant_id: TenantId, visitor: Operator, amount: Text = "", days: Text = "", reason: Reason = ""
) -> Response:
    """Gives promotional credit."""
    typed = {"amount": amount, "days": days, "reason": reason}
    try:
        values = {"paise": in_paise(amount.strip()), "days": _days(days), "reason": given(reason)}
        await wallets.give_credit(visitor.context, tenant_id, NewWalletCredit.model_validate(values))
    except (ValidationError, Invalid, Conflict) as error:
        return _refused(request, tenant_id, error, typed)
    return see_other(f"/operator/tenants/{tenant_id}/wallet?said=credited")


@router.post("/{tenant_id}/wallet/refunds")
async def refund(
    request: Request, tenant_id: TenantId, visitor: Operator, back: Text = "", reason: Reason = ""
) -> Response:
    """Gives unused money back: all of it, or an amount."""
    try:
        values = {"paise": in_paise(back.strip()) if back.strip() else None, "reason": given(reason)}
        await wallets.refund(visitor.context, tenant_id, WalletRefund.model_validate(values))
    except (ValidationError, Invalid, Conflict) as error:
        return _refused(request, tenant_id, error, {"back": back, "why": reason})
    return see_other(f"/operator/tenants/{tenant_id}/wallet?said=refunded")


def _refused(request: Request, tenant_id: UUID, error: Exception, typed: dict[str, str]) -> Response:
    if isinstance(error, ValidationError):
        said = " ".join(_WORDS.get(str(fault["loc"][0]), "This value is not valid.") for fault in error.errors())
    else:
        said = sentence(str(error))
    return leave(request, f"/operator/tenants/{tenant_id}/wallet", status=422, fault=said, fields=typed)


def _days(text: str) -> int | str | None:
    """A whole number; text that is none is left to the schema, which refuses it."""
    return int(text) if text.strip().isascii() and text.strip().isdigit() else text.strip() or None


def _lots(wallet: WalletView, here: Here) -> Listing:
    rows = [
        Row(
            [
                Cell("Money" if lot.kind == "money" else "Promotional credit"),
                money(lot.left_paise),
                money(lot.paise),
                Cell("never" if lot.expires_at is None else here.day(lot.expires_at)),
            ]
        )
        for lot in wallet.lots
    ]
    return Listing(["What", "Left", "Of", "Expires"], rows, "The wallet is empty.")


def _top_ups(wallet: WalletView, here: Here) -> Listing:
    rows = [
        Row(
            [
                Cell("automatic" if each.is_automatic else "by the tenant", f"/operator/bills/{each.id}"),
                money(each.paise),
                money(each.total_paise),
                Cell(words(each.collected_by) if each.collected_by else "not sent yet"),
                Cell(here.at(each.created_at)),
            ]
        )
        for each in wallet.open_top_ups
    ]
    return Listing(["Top-up", "Before GST", "With GST", "Paid by", "Asked for"], rows, "No top-up waits for its money.")


async def _entries(visitor: Visitor, tenant_id: UUID, cursor: UUID | None, here: Here) -> Listing:
    found = await wallets.list_entries(visitor.context, tenant_id, before=cursor, size=_SIZE)
    rows = [
        Row(
            [
                Cell(words(each.kind), note=each.reason),
                money(each.paise),
                Cell("View", f"/operator/bills/{each.bill_id}") if each.bill_id else Cell(""),
                Cell(each.period or ""),
                Cell(here.day(each.expires_at) if each.expires_at else ""),
                Cell(here.at(each.created_at)),
            ]
        )
        for each in found.items
    ]
    older = with_query(f"/operator/tenants/{tenant_id}/wallet", cursor=found.next) if found.next else None
    return Listing(["Movement", "Amount", "Bill", "Period", "Expires", "When"], rows, "No movements yet.", older)
