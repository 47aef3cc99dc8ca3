"""Plans, items and customers."""

from typing import Any

from sandbox.razorpay.addons import new_item
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.calendar import PERIODS
from sandbox.razorpay.entities import Customer, Item, Plan
from sandbox.razorpay.refusals import Refused, flag, integer, notes, only, required

Json = dict[str, Any]

_PLAN = {"period", "interval", "item", "notes"}
_LEAST_DAYS = 7
_NAME = range(3, 51)


def create_plan(books: Books, body: Json, now: int) -> Plan:
    """`POST /v1/plans`; raises Refused."""
    only(body, _PLAN)
    period, interval = required(body, "period"), integer(body, "interval")
    if period not in PERIODS:
        raise Refused("Not a valid plan period", field="period")
    if interval < (_LEAST_DAYS if period == "daily" else 1):
        raise Refused("The interval is too small for the period.", field="interval")
    item = required(body, "item")
    if not isinstance(item, dict):
        raise Refused("The item field is required.", field="item")
    made = Plan(
        id=new_id("plan"),
        interval=interval,
        period=period,
        item=new_item(item, "plan", now),
        notes=notes(body),
        created_at=now,
    )
    books.plans[made.id] = made
    return made


def create_item(books: Books, body: Json, now: int) -> Item:
    """`POST /v1/items`."""
    made = new_item(body, "invoice", now)
    books.items[made.id] = made
    return made


def edit_item(books: Books, key: str, body: Json) -> Item:
    """`PATCH /v1/items/:id`."""
    kept = find(books.items, key)
    kept.name, kept.description = str(body.get("name", kept.name)), body.get("description", kept.description)
    kept.active = flag(body, "active", default=kept.active)
    if "amount" in body:
        kept.amount = integer(body, "amount")
    return kept


def create_customer(books: Books, body: Json, now: int) -> Customer:
    """`POST /v1/customers`; equal e-mail and contact mean the same customer. Assumption: the duplicate's message."""
    name, email, contact = body.get("name"), body.get("email"), body.get("contact")
    if name is not None and len(str(name)) not in _NAME:
        raise Refused("The name must be between 3 and 50 characters.", field="name")
    for known in books.customers.values():
        if (known.email, known.contact) == (email, contact):
            if flag(body, "fail_existing", default=True):
                raise Refused("Customer already exists for the merchant")
            return known
    made = Customer(
        id=new_id("cust"),
        name=name,
        email=email,
        contact=contact,
        gstin=body.get("gstin"),
        notes=notes(body),
        created_at=now,
    )
    books.customers[made.id] = made
    return made


def edit_customer(books: Books, key: str, body: Json) -> Customer:
    """`PUT /v1/customers/:id`."""
    kept = find(books.customers, key)
    kept.name, kept.email = body.get("name", kept.name), body.get("email", kept.email)
    kept.contact = body.get("contact", kept.contact)
    return kept
