"""Pages of a list: `{"items": [...], "next": cursor | null}`."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")

DEFAULT_SIZE = 50
MAX_SIZE = 200


class Page(BaseModel, Generic[T]):
    """Items, and the cursor of the following page; `next` is null on the last page.

    A page can hold fewer items than `limit`, or none, and still have a `next`: it reads a bounded number of rows.
    """

    items: list[T]
    next: str | None = None


class Found(Protocol):
    """Rows that a keyset query found, and the id that the next page begins after."""

    @property
    def rows(self) -> Sequence[Any]:
        """The rows."""

    @property
    def next(self) -> UUID | None:
        """The cursor of the next page."""


def page_of(found: Found, show: Callable[[Any], T]) -> Page[T]:
    """The page of rows found by a keyset query."""
    return Page(items=[show(row) for row in found.rows], next=None if found.next is None else str(found.next))


def one_more(size: int | None) -> int | None:
    """The number of rows to query for a page of `size`; None: all."""
    return None if size is None else size + 1


def page(
    rows: Sequence[R],
    size: int | None,
    show: Callable[[R], T],
    cursor_of: Callable[[R], Any] = lambda row: row.id,  # type: ignore[attr-defined]
) -> Page[T]:
    """The page of `rows`, queried with `one_more(size)`: an extra row means that there is a next page."""
    shown = rows[:size]
    return Page(items=[show(row) for row in shown], next=str(cursor_of(shown[-1])) if len(rows) > len(shown) else None)
