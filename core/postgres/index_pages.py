"""Keyset pages of a list, newest first, at a cost that does not depend on the list's length.

A page walks one index: equalities on its first columns, then the id, a UUIDv7. Conditions that the index does not cover
filter at most `MOST_ROWS` rows, so a page may hold fewer items than its limit, or none, with a cursor to go on.

The order names all index columns, and the bounds compare whole rows. With plain equalities Postgres would treat the
order as one by id alone and might walk the rows of all tenants. Its statistics are useless for row comparisons, so
sorting and scans are disabled: only the index with that order remains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, RowMapping, Select, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from core.postgres.database import Base

MOST_ROWS = 5_000
"""The most rows that a page filters."""
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)

Sift = Callable[[Any], ColumnElement[bool]]
"""A condition on the columns of a row, not covered by the index."""


@dataclass(frozen=True, slots=True)
class KeysetQuery:
    """A list query. `fixed`: values of the first columns of an index whose next column is the id.

    `few`: a condition with its own index that few rows meet at any time; it replaces the index walk. Ids are
    `lowest <= id < before`.
    """

    table: type[Base]
    fixed: Mapping[str, Any]
    sift: Sequence[Sift] = ()
    few: ColumnElement[bool] | None = None
    lowest: UUID = LOWEST
    before: UUID = HIGHEST


@dataclass(frozen=True, slots=True)
class KeysetPage:
    """A page of at most `limit` rows. `next` is the cursor of the next page; None at the end."""

    rows: Sequence[Row[Any]]
    next: UUID | None

    @property
    def mappings(self) -> list[RowMapping]:
        """The rows as mappings."""
        return [row._mapping for row in self.rows]  # noqa: SLF001 - public API despite its name


async def read_page(session: AsyncSession, wanted: KeysetQuery, *, limit: int) -> KeysetPage:
    """Returns a page, newest first."""
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
    # Rows inserted between the two statements were not filtered: the cursor never goes back past the rows shown.
    return KeysetPage(rows, min([last_seen, *(row.id for row in rows[-1:])]))


def _of_few(wanted: KeysetQuery, few: ColumnElement[bool]) -> Select[Any]:
    """Selects by `few` first, then filters."""
    found = select(*wanted.table.__table__.c).where(few).offset(0).subquery()  # OFFSET keeps it a separate subquery
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
    """Selects by the index alone."""
    table = wanted.table.__table__.c
    query = select(*columns).where(table.id >= wanted.lowest, table.id < wanted.before)  # prunes the month partitions
    if wanted.fixed:
        key = tuple_(*(table[name] for name in wanted.fixed), table.id)
        values = tuple(wanted.fixed.values())
        query = query.where(key >= (*values, wanted.lowest), key < (*values, wanted.before))
    return query.order_by(*_order(table, wanted))


def _order(columns: Any, wanted: KeysetQuery) -> list[Any]:
    return [columns[name].desc() for name in (*wanted.fixed, "id")]
