"""The model without HTTP: one jump of the clock and many small steps leave the same books."""

import json
import random

import pytest

from sandbox.razorpay import authorisation, catalogue, links, schedule, subscriptions
from sandbox.razorpay.books import Books
from sandbox.razorpay.entities import METHODS
from tests.sandbox.razorpay.bench import DAY, START

Row = tuple[object, ...]
REASONS = ("ok", "ok", "insufficient_funds", "payment_timed_out")


def account(seed: int) -> Books:
    """A few subscriptions by every method, and links that run out, with charges that go well or not."""
    chance = random.Random(seed)
    books = Books(account_id="acc_T7mQx2LdVb9KcA", base_url="http://sim", key_secret="k", secret="w")
    item = {"name": "Team", "amount": 353_882, "currency": "INR"}
    plan = catalogue.create_plan(books, {"period": "monthly", "interval": 1, "item": item}, START)
    for method in METHODS:
        for count in (1, 3, 12):
            body = {"plan_id": plan.id, "total_count": count, "expire_by": START + 5 * DAY}
            if chance.random() < 0.3:
                body["start_at"] = START + 3 * DAY
            sub = subscriptions.create(books, body, START)
            if chance.random() < 0.9:
                authorisation.authorise(books, sub.id, method, START)
            sub.outcomes = chance.choices(REASONS, k=12)
            sub.cancel_at_cycle_end = sub.status == "active" and chance.random() < 0.2
    links.create(books, {"amount": 500, "expire_by": START + 40 * DAY}, START)
    return books


def told(books: Books) -> list[list[Row]]:
    """The books without their ids."""
    return [
        [(s.status, s.paid_count, s.cycles, s.charge_at, s.current_end) for s in books.subscriptions.values()],
        [(i.status, i.amount, i.created_at, i.paid_at, i.billing_end) for i in books.invoices.values()],
        [(p.status, p.amount, p.method, p.error_reason, p.created_at) for p in books.payments.values()],
        [(e.name, e.created_at, len(e.body)) for e in books.events],
        [(each.status, each.expired_at) for each in books.links.values()],
    ]


@pytest.mark.parametrize("seed", range(10))
def test_one_jump_and_many_steps_are_the_same(seed: int) -> None:
    jumped, stepped = account(seed), account(seed)
    chance = random.Random(f"steps {seed}")
    end = START + 200 * DAY
    schedule.advance(jumped, end)
    now = START
    while now < end:
        now = min(end, now + chance.randrange(1, 20 * DAY))
        schedule.advance(stepped, now)
    assert told(jumped) == told(stepped)
    assert len(jumped.invoices) > 12


@pytest.mark.parametrize("seed", range(10))
def test_money_kept_is_the_invoices_paid(seed: int) -> None:
    books = account(seed)
    schedule.advance(books, START + 500 * DAY)
    collected = sum(p.amount for p in books.payments.values() if p.status in ("captured", "refunded"))
    returned = sum(r.amount for r in books.refunds.values())
    assert collected - returned == sum(i.amount for i in books.invoices.values() if i.status == "paid")
    charged = sum(e.name == "subscription.charged" for e in books.events)
    assert charged == sum(s.paid_count for s in books.subscriptions.values())
    for order in books.orders.values():
        assert order.amount_paid in (0, order.amount)
    for event in books.events:
        assert json.loads(event.body)["created_at"] == event.created_at
