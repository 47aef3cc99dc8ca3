"""Pages of a list: `{"items": [...], "next": cursor | null}`."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from core.postgres.index_pages import KeysetPage

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")

DEFAULT_SIZE = 50
MAX_SIZE = 200


class Page(BaseModel, Generic[T]):
    """Some items, and the cursor of the following page; `next` is null on the last one.

    A page may hold fewer items than `limit`, or none, and still have a `next`: it looks at a bounded number of rows.
    """

    items: list[T]
    next: str | None = None


def page_of(found: KeysetPage, show: Callable[[Any], T]) -> Page[T]:
    """The page of rows found by a keyset query."""
    return Page(items=[show(row) for row in found.rows], next=None if found.next is None else str(found.next))


def page(
    rows: Sequence[R],
    size: int,
    show: Callable[[R], T],
    cursor_of: Callable[[R], Any] = lambda row: row.id,  # type: ignore[attr-defined]
) -> Page[T]:
    """The page of `rows`, which were queried with one more than `size`: an extra row means there is a next page."""
    shown = rows[:size]
    return Page(items=[show(row) for row in shown], next=str(cursor_of(shown[-1])) if len(rows) > size else None)
