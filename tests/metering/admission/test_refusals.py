"""The counter of refusals: by the operator's day, bounded, and kept while Postgres is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from core.errors import Unavailable
from core.postgres.database import Connections
from metering.admission import refusals
from metering.admission.refusals import RefusalCounter
from metering.quota.windows import Calendar


class Pool:
    """A pool that is away, or keeps what it is given."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.is_away = is_away
        self.written: list[tuple[Any, ...]] = []

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["Pool"]:
        if self.is_away:
            raise Unavailable
        yield self

    async def execute(self, _: str, *columns: list[Any], timeout: float) -> None:  # noqa: ASYNC109 - asyncpg's
        assert timeout > 0
        self.written += zip(*columns, strict=True)


async def _flush(counter: RefusalCounter, pool: Pool) -> None:
    await counter.flush(cast("Connections", pool))


async def test_counts_wait_until_postgres_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "now_ms", lambda: 1_767_225_599_000)  # 2026-01-01 05:29:59 IST
    counter, tenant = RefusalCounter(Calendar("Asia/Kolkata")), uuid4()
    for code in ("held", "blocked", "held"):
        counter.note(tenant, code)
    with pytest.raises(Unavailable):
        await _flush(counter, Pool(is_away=True))
    monkeypatch.setattr(refusals, "now_ms", lambda: 1_767_205_799_000)  # 2025-12-31 23:59:59 IST
    counter.note(tenant, "held")
    pool = Pool()
    await _flush(counter, pool)
    await _flush(counter, pool)
    assert sorted(pool.written) == [
        (tenant, date(2025, 12, 31), "held", 1),
        (tenant, date(2026, 1, 1), "blocked", 1),
        (tenant, date(2026, 1, 1), "held", 2),
    ]


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_MOST", 2)
    counter, pool = RefusalCounter(Calendar("UTC")), Pool()
    for number in (1, 2, 3, 1):
        counter.note(UUID(int=number), "held")
    await _flush(counter, pool)
    assert sorted((tenant.int, number) for tenant, _, _, number in pool.written) == [(1, 2), (2, 1)]
