"""Steps that fall due as time passes, in order of time.

`advance` makes each step at its due time, one after the other, so a jump of a month and many small steps leave the same
books.
"""

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter

from sandbox.razorpay import authorisation, charging, events, subscriptions
from sandbox.razorpay.books import Books
from sandbox.razorpay.entities import Invoice, Link, Subscription
from sandbox.razorpay.instruments import steps
from sandbox.razorpay.instruments.entities import Debit, QrCode, Token

Due = Subscription | Link | Invoice | steps.Waiting
_MAX_STEPS = 1_000_000
_OPEN_LINK = ("created", "partially_paid")


def next_moment(books: Books) -> int | None:
    """Time of the next step; None without one."""
    first = _next_due(books, *_running_out(books), steps.waiting(books))
    return None if first is None else first[0]


def advance(books: Books, until: int) -> None:
    """Makes all steps due up to and including `until`."""
    closing, ending = _running_out(books)
    waiting = steps.waiting(books)
    for _ in range(_MAX_STEPS):
        first = _next_due(books, closing, ending, waiting)
        if first is None or first[0] > until:
            return
        at, thing = first
        if isinstance(thing, Subscription):
            _step(books, thing, at)
        elif isinstance(thing, Link):
            thing.status, thing.expired_at, thing.updated_at = "expired", at, at
            events.link(books, at, "expired", thing)
        elif isinstance(thing, Token | Debit | QrCode):
            steps.step(books, thing, at)
        else:
            thing.status, thing.expired_at = "expired", at
            events.invoice_expired(books, at, thing)
    raise RuntimeError("time does not get on")


def _running_out(books: Books) -> tuple[list[Link], list[Invoice]]:
    """Links and invoices that may expire."""
    closing = [link for link in books.links.values() if link.status in _OPEN_LINK]
    return closing, [invoice for invoice in books.invoices.values() if invoice.expire_by is not None]


def _next_due(
    books: Books, closing: list[Link], ending: list[Invoice], waiting: list[steps.Waiting]
) -> tuple[int, Due] | None:
    """The first step and its time; steps create nothing that could be due in these lists."""
    moments: Iterator[tuple[int | None, Due]] = chain(
        ((_due(books, sub), sub) for sub in books.subscriptions.values()),
        ((link.expire_by if link.status in _OPEN_LINK else None, link) for link in closing),
        ((invoice.expire_by if invoice.status == "issued" else None, invoice) for invoice in ending),
        ((steps.next_at(thing), thing) for thing in waiting),
    )
    return min(((at, thing) for at, thing in moments if at is not None), key=itemgetter(0), default=None)


def _due(books: Books, sub: Subscription) -> int | None:
    """Time of the subscription's next step."""
    if sub.status == "created":
        if sub.method is not None:
            return sub.charge_at
        ends = [at for at in (sub.expire_by, sub.start_at) if at is not None]
        return min(ends) + books.settings.expiry_lag_s if ends else None
    if sub.status == "authenticated":
        return sub.start_at
    if sub.status in ("active", "pending"):
        ahead = [at for at in (sub.charge_at, sub.current_end) if at is not None]
        return min(ahead) if ahead else None
    return sub.current_end if sub.status == "halted" else None


def _step(books: Books, sub: Subscription, now: int) -> None:
    """Makes a subscription's next step, at its time."""
    if sub.status == "created":
        if sub.method is not None:
            authorisation.start_now(books, sub, now)
        else:
            sub.status, sub.charge_at = "expired", None
    elif sub.status == "authenticated":
        _first_cycle(books, sub, now)
    elif sub.current_end is not None and now >= sub.current_end:
        _cycle_ends(books, sub, now)
    else:
        charging.attempt(books, sub, books.invoices[sub.invoice_id or ""], now)


def _first_cycle(books: Books, sub: Subscription, now: int) -> None:
    """Ends a trial: active, then charged."""
    charging.open_cycle(books, sub, now, started=now)
    sub.status, sub.charge_at = "active", now
    events.subscription(books, now, "activated", sub)
    _charge_or_wait(books, sub, now)


def _cycle_ends(books: Books, sub: Subscription, now: int) -> None:
    """Begins the next cycle, or ends the subscription as requested or after its last cycle."""
    if sub.status == "active" and sub.cancel_at_cycle_end:
        subscriptions.end(books, sub, now, by="self")
        return
    if charging.is_last(sub):
        charging.complete(books, sub, now)
        return
    charging.open_cycle(books, sub, now, started=now)
    if sub.status == "halted":
        sub.charge_at = sub.current_end
        return
    sub.auth_attempts = 0
    sub.charge_at = now
    _charge_or_wait(books, sub, now)


def _charge_or_wait(books: Books, sub: Subscription, now: int) -> None:
    """Charges at once, or on the bank's day."""
    delay = books.settings.debit_delay_s.get(sub.method or "", 0)
    if delay:
        sub.charge_at = now + delay
        return
    charging.attempt(books, sub, books.invoices[sub.invoice_id or ""], now)
