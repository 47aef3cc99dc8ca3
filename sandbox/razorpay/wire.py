"""Entities as JSON, with the fields, nulls and quirks of Razorpay's API reference."""

from dataclasses import fields
from typing import Any

from sandbox.razorpay.entities import (
    Addon,
    Customer,
    Dispute,
    Invoice,
    Item,
    LineItem,
    Link,
    Order,
    Payment,
    Plan,
    Refund,
    Subscription,
)
from sandbox.razorpay.instruments import shapes

Json = dict[str, Any]

_HIDDEN = {
    Subscription: {
        "method", "token_id", "card_id", "cycles", "swallowed", "invoice_id", "cancel_at_cycle_end", "changes",
        "outcomes",
    },
    Order: {"mandate", "customer_id", "notification"},
    Payment: {"kind", "subscription_id", "link_id", "qr_code_id"},
    Refund: {"by"},
}  # fmt: skip
_NO_TAX: Json = {
    "tax_inclusive": False,
    "hsn_code": None,
    "sac_code": None,
    "tax_rate": None,
}


def _plain(thing: Any, name: str) -> Json:
    """The visible fields; empty notes are an empty list, as in Razorpay's answers."""
    hidden = _HIDDEN.get(type(thing), set())
    shown = {f.name: getattr(thing, f.name) for f in fields(thing) if f.name not in hidden}
    if "notes" in shown:
        shown["notes"] = shown["notes"] or []
    return {"entity": name, **shown}


def item(kept: Item) -> Json:
    """An item; inside plans and add-ons too."""
    more = {"unit_amount": kept.amount, "unit": None, **_NO_TAX, "tax_id": None, "tax_group_id": None}
    shown = {**_plain(kept, "item"), **more, "updated_at": kept.created_at}
    del shown["entity"]
    return shown


def plan(kept: Plan) -> Json:
    """A plan."""
    return {**_plain(kept, "plan"), "item": item(kept.item)}


def customer(kept: Customer) -> Json:
    """A customer."""
    return _plain(kept, "customer")


def subscription(kept: Subscription) -> Json:
    """A subscription. A cancel at cycle end doesn't show."""
    shown = _plain(kept, "subscription")
    for name in ("paused_at", "pause_initiated_by", "cancel_initiated_by"):
        if shown[name] is None:
            del shown[name]
    if kept.payment_method == "card":
        shown["card_mandate_id"] = None
    issued = kept.cycles - kept.swallowed
    return {**shown, "remaining_count": max(0, kept.total_count - issued)}


def addon(kept: Addon) -> Json:
    """An add-on."""
    return {**_plain(kept, "addon"), "item": item(kept.item)}


def _line(kept: LineItem) -> Json:
    total = kept.amount * kept.quantity
    shown = _plain(kept, "line_item") | _NO_TAX
    del shown["entity"]
    sums = {"unit_amount": kept.amount, "gross_amount": total, "taxable_amount": total, "net_amount": total}
    return {**shown, **sums, "tax_amount": 0, "ref_id": None, "ref_type": None, "unit": None, "taxes": []}


def invoice(kept: Invoice) -> Json:
    """An invoice; a single one has no `subscription_id`."""
    shown = _plain(kept, "invoice")
    payer = shown.pop("customer")
    paid = kept.status == "paid"
    shown |= {
        "customer_details": {
            "id": kept.customer_id, "name": payer.get("name"), "email": payer.get("email"),
            "contact": payer.get("contact"), "gstin": None, "billing_address": payer.get("billing_address"),
            "shipping_address": None, "customer_name": payer.get("name"), "customer_email": payer.get("email"),
            "customer_contact": payer.get("contact"),
        },
        "line_items": [_line(line) for line in kept.line_items], "sms_status": None,
        "invoice_number": kept.receipt if kept.type == "link" else None,
        "email_status": None, "date": kept.created_at, "partial_payment": False, "gross_amount": kept.amount,
        "tax_amount": 0, "taxable_amount": kept.amount, "amount_paid": kept.amount if paid else 0,
        "amount_due": 0 if paid else kept.amount, "currency_symbol": "₹", "view_less": True,
        "group_taxes_discounts": False, "idempotency_key": None,
    }  # fmt: skip
    if kept.subscription_id is None:
        del shown["subscription_id"]
    return shown


def order(kept: Order) -> Json:
    """An order, with the mandate that it registers or the notice of its debit."""
    shown = {**_plain(kept, "order"), "amount_due": max(0, kept.amount - kept.amount_paid), "offer_id": None}
    if kept.mandate is not None:
        shown["token"] = shapes.terms(kept.mandate)
    if kept.notification is not None:
        shown["notification"] = kept.notification
    return shown


def payment(kept: Payment) -> Json:
    """A payment, with the fields of its method."""
    shown = _plain(kept, "payment")
    shown |= {"captured": kept.status in ("captured", "refunded"), "wallet": None}
    shown["acquirer_data"] = {"auth_code": None} if kept.method == "card" else {"rrn": None}
    if kept.method == "card":
        shown["card"] = {
            "id": kept.card_id, "entity": "card", "name": "", "last4": "5558" if kept.international else "4366",
            "network": "MasterCard" if kept.international else "Visa", "type": "credit", "issuer": None,
            "international": kept.international, "emi": False, "sub_type": "consumer", "token_iin": None,
        }  # fmt: skip
    if kept.method == "upi":
        shown["upi"] = {"payer_account_type": "bank_account", "vpa": kept.vpa}
    return shown


def refund(kept: Refund) -> Json:
    """A refund."""
    more = {"acquirer_data": {"arn": None}, "batch_id": None, "speed_processed": kept.speed_requested}
    return {**_plain(kept, "refund"), **more}


def link(kept: Link, payments: list[Payment]) -> Json:
    """A payment link: no `entity`, unset times are 0, `order_id` only after its page was used."""
    shown = _plain(kept, "")
    del shown["entity"], shown["payment_ids"]
    if not kept.order_id:
        del shown["order_id"]
    shown["payments"] = [
        {
            "amount": each.amount, "created_at": each.created_at, "method": each.method, "payment_id": each.id,
            "plink_id": kept.id, "status": each.status, "updated_at": each.created_at,
        }
        for each in payments
        if each.status != "failed"
    ] or None  # fmt: skip
    return {**shown, "reminders": [], "upi_link": False, "user_id": "", "whatsapp_link": False}


def dispute(kept: Dispute) -> Json:
    """A dispute."""
    return {**_plain(kept, "dispute"), "amount_deducted": 0, "gateway_dispute_id": None}
