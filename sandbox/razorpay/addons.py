"""Add-ons (extras on the next invoice, refused for Indian methods) and items.

Assumptions: the states that accept one, and the refusal for e-mandate.
"""

from typing import Any

from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.entities import Addon, Item, Subscription
from sandbox.razorpay.refusals import Refused, amount, integer, required

Json = dict[str, Any]

_REFUSED = {
    "upi": "Add-ons can't be added for Subscriptions when payment mode is upi",
    "card_domestic": "Addons can't be added for subscriptions when payment mode is domestic card",
    "emandate": "Addons can't be added for subscriptions when payment mode is emandate",
}
_OPEN = ("authenticated", "active", "pending", "paused", "halted")


def new_item(body: Json, kind: str, now: int) -> Item:
    """The item of a request; raises Refused."""
    return Item(
        id=new_id("item"),
        name=str(required(body, "name")),
        description=body.get("description"),
        amount=amount(body),
        currency=str(required(body, "currency")),
        type=kind,
        created_at=now,
    )


def read(books: Books, currency: str, body: Any, now: int) -> tuple[Item, int]:
    """The item and the quantity of an add-on; raises Refused."""
    del books
    wanted = required(body, "item") if isinstance(body, dict) else None
    if not isinstance(wanted, dict):
        raise Refused("The item field is required.", field="item")
    item = new_item(wanted, "addon", now)
    if item.currency != currency:
        raise Refused("Currency of the addon should be the same as of the plan.", field="currency")
    quantity = integer(body, "quantity", 1)
    if quantity < 1:
        raise Refused("The quantity must be at least 1.", field="quantity")
    return item, quantity


def create(books: Books, key: str, body: Json, now: int) -> Addon:
    """`POST /v1/subscriptions/:id/addons`; raises Refused by method and state."""
    sub = find(books.subscriptions, key)
    if sub.status not in _OPEN:
        raise Refused(f"Addons can't be added when subscription is in {sub.status} state", field="status")
    if sub.method in _REFUSED:
        raise Refused(_REFUSED[sub.method])
    item, quantity = read(books, books.plans[sub.plan_id].item.currency, body, now)
    return keep(books, sub, item, quantity, now)


def keep(books: Books, sub: Subscription, item: Item, quantity: int, now: int) -> Addon:
    """Adds an add-on to the subscription, for its next invoice."""
    made = Addon(id=new_id("ao"), item=item, quantity=quantity, created_at=now, subscription_id=sub.id)
    books.addons[made.id] = made
    return made


def delete(books: Books, key: str) -> None:
    """`DELETE /v1/addons/:id`, until an invoice carries it. Assumption: the message."""
    if find(books.addons, key).invoice_id is not None:
        raise Refused("The addon is linked to an invoice and cannot be deleted.")
    del books.addons[key]
