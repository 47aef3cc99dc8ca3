"""Lists: `{"items": [...], "next": cursor | null}`. The cursor is where the next page starts; ask with `cursor=`."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel

from api.routes.admin.fields import EXAMPLE_ID
from core.walks import Found

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")

DEFAULT_SIZE = 50
MAX_SIZE = 200

Cursor = Annotated[UUID | None, Query(description="`next` of the page before", examples=[EXAMPLE_ID])]
PageSize = Annotated[int, Query(alias="limit", ge=1, le=MAX_SIZE, description="Items on a page", examples=[50])]


class Page(BaseModel, Generic[T]):
    """Some items, and where to go on; `next` is null on the last page.

    A page may hold fewer items than `limit`, or none, and still have a `next`: it looks at a bounded number of rows.
    """

    items: list[T]
    next: str | None = None


def page_of(found: Found, show: Callable[[Any], T]) -> Page[T]:
    """The page of what was found."""
    return Page(items=[show(row) for row in found.rows], next=None if found.next is None else str(found.next))


def page(
    rows: Sequence[R],
    size: int,
    show: Callable[[R], T],
    cursor_of: Callable[[R], Any] = lambda row: row.id,  # type: ignore[attr-defined]
) -> Page[T]:
    """The page of `rows`, which were asked for with one more than `size`: its presence says that there is more."""
    shown = rows[:size]
    return Page(items=[show(row) for row in shown], next=str(cursor_of(shown[-1])) if len(rows) > size else None)
