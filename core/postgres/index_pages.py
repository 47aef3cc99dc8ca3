"""Lists, newest first, of which a page costs the same however much lies behind it.

A table is walked down one index: equalities on its first columns, then the id, a UUIDv7. What the index does not know
is sifted row by row, out of a bounded number of rows: a page that finds little in them ends there, holds fewer items
than it may, or none, and says where to go on.

The order names all columns of the index, and the bounds are comparisons of whole rows: with plain equalities Postgres
takes the order for one by id alone, and walks down all tenants' rows, however rare the tenant is, if its statistics say
that it will soon have found enough. Of such bounds they say nothing useful, so sorting is ruled out as well: what is
left is the index with that order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, RowMapping, Select, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from core.postgres.database import Base

MOST_ROWS = 5_000
"""A page looks at no more rows than this, if it has to sift."""
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)

Sift = Callable[[Any], ColumnElement[bool]]
"""A condition on the columns of a row."""


@dataclass(frozen=True, slots=True)
class KeysetQuery:
    """What to list. `fixed`: the first columns of an index whose next is the id, and their values.

    `few`: a condition that few rows meet at any time, by an index of its own: it is asked first, instead of the walk.
    Ids are `lowest <= id < before`.
    """

    table: type[Base]
    fixed: Mapping[str, Any]
    sift: Sequence[Sift] = ()
    few: ColumnElement[bool] | None = None
    lowest: UUID = LOWEST
    before: UUID = HIGHEST


@dataclass(frozen=True, slots=True)
class KeysetPage:
    """A page: at most as many rows as were asked for. `next` is where to go on; None at the end."""

    rows: Sequence[Row[Any]]
    next: UUID | None

    @property
    def mappings(self) -> list[RowMapping]:
        """The rows, by the names of their columns."""
        return [row._mapping for row in self.rows]  # noqa: SLF001 - public, and named as a namedtuple's


async def read_page(session: AsyncSession, wanted: KeysetQuery, *, limit: int) -> KeysetPage:
    """A page of the list, newest first."""
    if wanted.few is not None:
        rows = (await session.execute(_of_few(wanted, wanted.few).limit(limit + 1))).all()
        return KeysetPage(rows[:limit], rows[limit - 1].id if len(rows) > limit else None)
    await session.execute(_BY_INDEX)
    found = await _by_index(session, wanted, limit)
    await session.execute(_AS_BEFORE)
    return found


_PLANNER = ("enable_sort", "enable_incremental_sort", "enable_seqscan", "enable_bitmapscan")
_BY_INDEX = text("SELECT " + ", ".join(f"set_config('{name}', 'off', true)" for name in _PLANNER))
_AS_BEFORE = text("SELECT " + ", ".join(f"set_config('{name}', 'on', true)" for name in _PLANNER))


async def _by_index(session: AsyncSession, wanted: KeysetQuery, limit: int) -> KeysetPage:
    rows = (await session.execute(_page(wanted).limit(limit + 1))).all()
    if len(rows) > limit:
        return KeysetPage(rows[:limit], rows[limit - 1].id)
    if not wanted.sift:
        return KeysetPage(rows, None)
    last_seen = await session.scalar(_steps(wanted, [wanted.table.__table__.c.id]).offset(MOST_ROWS - 1).limit(1))
    if last_seen is None:
        return KeysetPage(rows, None)
    # Rows that came in between the two statements are none that were sifted: never go back behind what is shown.
    return KeysetPage(rows, min([last_seen, *(row.id for row in rows[-1:])]))


def _of_few(wanted: KeysetQuery, few: ColumnElement[bool]) -> Select[Any]:
    """All of the few, then what else is asked of them."""
    found = select(*wanted.table.__table__.c).where(few).offset(0).subquery()  # OFFSET keeps it a query of its own
    query = select(*found.c).where(found.c.id >= wanted.lowest, found.c.id < wanted.before)
    for name, value in wanted.fixed.items():
        query = query.where(found.c[name] == value)
    return query.where(*(sift(found.c) for sift in wanted.sift)).order_by(found.c.id.desc())


def _page(wanted: KeysetQuery) -> Select[Any]:
    steps = _steps(wanted, list(wanted.table.__table__.c))
    if not wanted.sift:
        return steps
    seen = steps.limit(MOST_ROWS).subquery()
    return select(*seen.c).where(*(sift(seen.c) for sift in wanted.sift)).order_by(*_order(seen.c, wanted))


def _steps(wanted: KeysetQuery, columns: Sequence[Any]) -> Select[Any]:
    """Row by row down the index."""
    table = wanted.table.__table__.c
    query = select(*columns).where(table.id >= wanted.lowest, table.id < wanted.before)  # which months to look at
    if wanted.fixed:
        key = tuple_(*(table[name] for name in wanted.fixed), table.id)
        values = tuple(wanted.fixed.values())
        query = query.where(key >= (*values, wanted.lowest), key < (*values, wanted.before))
    return query.order_by(*_order(table, wanted))


def _order(columns: Any, wanted: KeysetQuery) -> list[Any]:
    return [columns[name].desc() for name in (*wanted.fixed, "id")]
