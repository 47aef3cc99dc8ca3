"""The machinery of the typed calls: shaping of answers, pages of lists. Knows the SDK's resources by their names only.

Razorpay down: reads raise RazorpayUnavailable and writes RazorpayInDoubt, after a bounded time.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from billing.razorpay.entities import (
    ENTITY_ID,
    Addon,
    Dispute,
    Invoice,
    Misshapen,
    Order,
    Payment,
    PaymentLink,
    Plan,
    QrCode,
    Refund,
    Registration,
    Subscription,
    Token,
    entities,
    entity,
)
from billing.razorpay.errors import RazorpayUnavailable
from billing.razorpay.transport import Transport

PAGE = 100  # Razorpay's largest
MAX_PAGES = 50

E = TypeVar(
    "E", Plan, Subscription, Invoice, Payment, Refund, Dispute, PaymentLink, Addon, Registration, Order, Token, QrCode
)
Json = dict[str, Any]
Resource = Callable[[Any], Any]
"""Selects one of the SDK's resources of a client."""


class Calls:
    """The base of a client: calls over a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def _write(self, kind: type[E], work: Callable[[Any], Any]) -> E:
        return await self._transport.write(work, partial(entity, kind))

    async def _fetch(self, kind: type[E], one: str, resource: Resource) -> E:
        found = await self._transport.read(lambda sdk: resource(sdk).fetch(one), partial(entity, kind))
        if found.id != one:
            raise RazorpayUnavailable(f"asked for {one}, got another {kind.__name__}")
        return found

    async def _all(self, kind: type[E], resource: Resource, filters: Json | None = None) -> list[E]:
        return await self._pages(kind, lambda sdk, page: resource(sdk).all((filters or {}) | page))

    async def _pages(self, kind: type[E], ask: Callable[[Any, Json], Any]) -> list[E]:
        """All pages. Raises RazorpayUnavailable past MAX_PAGES, since a partial list would hide what exists."""
        found: dict[str, E] = {}  # by id: an item created meanwhile shifts the pages, so one may come twice
        for number in range(MAX_PAGES):
            where = {"count": PAGE, "skip": number * PAGE}
            page = await self._transport.read(partial(_ask_page, ask, where), partial(entities, kind))
            found |= {one.id: one for one in page}
            if len(page) < PAGE:
                return list(found.values())
        raise RazorpayUnavailable(f"more than {MAX_PAGES} pages of {kind.__name__}: narrow the time")

    async def _each_page(self, kind: type[E], resource: Resource, filters: Json) -> AsyncIterator[list[E]]:
        """Page by page, however many there are; one page is in memory at a time.

        An item that a newer one has moved to the next page comes once. Raises RazorpayUnavailable for a list that
        doesn't advance.
        """
        number, last = 0, set[str]()
        while True:
            where = {"count": PAGE, "skip": number * PAGE}
            ask = partial(_ask_page, lambda sdk, page: resource(sdk).all(filters | page), where)
            page = await self._transport.read(ask, partial(entities, kind))
            fresh = [one for one in page if one.id not in last]
            if page and not fresh:
                raise RazorpayUnavailable(f"the list of {kind.__name__} does not advance")
            yield fresh
            if len(page) < PAGE:
                return
            number, last = number + 1, {one.id for one in page}


def _ask_page(ask: Callable[[Any, Json], Any], where: Json, sdk: Any) -> Any:
    return ask(sdk, where)


def checked_id(value: str) -> str:
    """The id, if it is safe in a URL path. Raises ValueError."""
    if not ENTITY_ID.fullmatch(value):
        raise ValueError("not an id of Razorpay's")
    return value


def given(body: Json, **fields: Any) -> Json:
    """The body with those fields that are not None."""
    return body | {name: value for name, value in fields.items() if value is not None}


def has_notes(notes: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether the notes include all wanted ones."""
    return wanted.items() <= notes.items()


def entities_of(kind: type[E]) -> Callable[[object], list[E]]:
    """The conversion of a page of a list."""
    return partial(entities, kind)


def nothing_but_status(answer: object) -> None:
    """Raises Misshapen for an answer without a status."""
    if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
        raise Misshapen("an answer without a status")


def nothing(answer: object) -> None:
    """Raises Misshapen for an answer with something in it."""
    if answer not in ([], {}):
        raise Misshapen("a deletion's answer is not empty")
