"""Single invoices: draft, issued, paid on their page, cancelled. They have no tax."""

from typing import Any

from sandbox.razorpay import payments
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.entities import Invoice, LineItem
from sandbox.razorpay.refusals import Refused, amount, flag, integer, notes, required

Json = dict[str, Any]

_MAX_LINES = 50
_MAX_RECEIPT = 40
_SOONEST_S = 15 * 60


def create(books: Books, body: Json, now: int) -> Invoice:
    """`POST /v1/invoices`: issued at once, unless a draft."""
    payer = _payer(books, body)
    lines = [_line(books, each) for each in body.get("line_items") or []]
    if not lines or len(lines) > _MAX_LINES:
        raise Refused("line_items is required.")
    currency = str(body.get("currency") or lines[0].currency)
    if any(line.currency != currency for line in lines):
        raise Refused("Currency of all items should be the same as of the invoice.")
    if len(str(body.get("receipt") or "")) > _MAX_RECEIPT:
        raise Refused("The receipt may not be greater than 40 characters.", field="receipt")
    key = new_id("inv")
    made = Invoice(
        id=key,
        subscription_id=None,
        receipt=body.get("receipt"),
        customer_id=body.get("customer_id"),
        customer=payer,
        order_id=None,
        line_items=lines,
        status="draft",
        expire_by=_expiry(body, now),
        issued_at=None,
        amount=sum(line.amount * line.quantity for line in lines),
        currency=currency,
        description=body.get("description"),
        notes=notes(body),
        terms=body.get("terms"),
        comment=body.get("comment"),
        short_url=books.page(key),
        created_at=now,
    )
    books.invoices[key] = made
    return made if flag(body, "draft") else issue(books, key, now)


def _payer(books: Books, body: Json) -> Json:
    if body.get("customer_id"):
        known = find(books.customers, body["customer_id"])
        return {"name": known.name, "email": known.email, "contact": known.contact}
    payer = body.get("customer")
    if not isinstance(payer, dict):
        raise Refused("customer is required.")
    return payer


def _line(books: Books, body: Json) -> LineItem:
    quantity = integer(body, "quantity", 1)
    if body.get("item_id"):
        known = find(books.items, body["item_id"])
        return LineItem(
            id=new_id("li"),
            name=known.name,
            amount=known.amount,
            currency=known.currency,
            quantity=quantity,
            type="invoice",
            item_id=known.id,
        )
    return LineItem(
        id=new_id("li"),
        name=str(required(body, "name")),
        amount=amount(body),
        currency=str(body.get("currency") or "INR"),
        quantity=quantity,
        type="invoice",
        description=body.get("description"),
    )


def _expiry(body: Json, now: int) -> int | None:
    if body.get("expire_by") is None:
        return None
    at = integer(body, "expire_by")
    if at < now + _SOONEST_S:
        raise Refused("expire_by should be at least 15 minutes after current time.")
    return at


def issue(books: Books, key: str, now: int) -> Invoice:
    """`POST .../issue`: payable from now on."""
    invoice = in_status(books, key, "draft")
    invoice.status, invoice.issued_at = "issued", now
    order = payments.new_order(books, now, invoice.amount, invoice.currency, receipt=invoice.receipt)
    invoice.order_id = order.id
    return invoice


def cancel(books: Books, key: str, now: int) -> Invoice:
    """`POST .../cancel`."""
    invoice = in_status(books, key, "issued")
    invoice.status, invoice.cancelled_at = "cancelled", now
    return invoice


def edit(books: Books, key: str, body: Json, now: int) -> Invoice:
    """`PATCH`: notes, comment, terms and expiry, and a draft's lines too."""
    invoice = in_status(books, key, "draft", "issued")
    if invoice.status == "draft" and "line_items" in body:
        invoice.line_items = [_line(books, each) for each in body["line_items"]]
        invoice.amount = sum(line.amount * line.quantity for line in invoice.line_items)
    if "notes" in body:
        invoice.notes = notes(body)
    if "expire_by" in body:
        invoice.expire_by = _expiry(body, now)
    invoice.comment = body.get("comment", invoice.comment)
    invoice.terms = body.get("terms", invoice.terms)
    return invoice


def delete(books: Books, key: str) -> None:
    """`DELETE`: drafts only."""
    in_status(books, key, "draft")
    del books.invoices[key]


def in_status(books: Books, key: str, *allowed: str) -> Invoice:
    """The invoice in one of these states; raises Refused."""
    invoice = find(books.invoices, key)
    if invoice.status not in allowed:
        raise Refused(f"Operation not allowed for Invoice in {invoice.status} status.")
    return invoice
