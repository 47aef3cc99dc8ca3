"""`/metrics`: correct values from every process, without a key, and without names in labels."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.routes import metrics
from core.ids import uuid7
from core.settings import Settings
from sandbox.postgres import Postgres
from tests import servers
from tests.api.conftest import Api
from tests.harness import Books
from tests.programs import until

QUIET = {
    "naka_open_requests": 0,
    "naka_open_requests_overdue": 0,
    "naka_processes_alive": 1,
    "naka_running_requests": 0,
    "naka_spooled_settlements": 0,
    "naka_webhooks_waiting": 0,
    "naka_webhooks_parked": 0,
    "naka_webhook_lag_seconds": 0,
    "naka_webhooks_refused_total": 0,
    "naka_webhooks_stale_total": 0,
}


LABELS = {"outcome", "model", "class", "code", "scope", "window", "error", "kind", "lane", "le", "pool"}
"""Labels with few values, none of which names anybody."""


def _read(answer: httpx2.Response) -> dict[str, float]:
    """Returns the metrics named in QUIET and optional ones, and asserts that no label names anybody."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    assert {label for sample in samples for label in sample.labels} <= LABELS
    return {sample.name: sample.value for sample in samples if sample.name in QUIET or "reconcile" in sample.name}


async def _some_trouble(books: Books) -> None:
    """Three open requests, one of them overdue; a dead process; two reconciliations, the later with two drifts."""
    minute = timedelta(minutes=1)
    async with books.connection() as connection:
        for state, deadline in (("open", -minute), ("open", minute), ("open", minute), ("settled", -minute)):
            await connection.execute(
                "INSERT INTO usage_requests (tenant_id, id, user_id, process_id, state, deadline_at)"
                " VALUES ($1, $2, $1, $1, $3, now() + $4::interval)",
                UUID(int=7),
                uuid7(),
                state,
                deadline,
            )
        await connection.execute(
            "INSERT INTO processes (id, host, pid, beat, beat_at, progress)"
            " VALUES ($1, 'h', 1, 1, now() - $2::interval, '[]')",
            uuid7(),
            minute,
        )
        for drifts, age in ((2, minute), (5, 2 * minute)):
            await connection.execute(
                "INSERT INTO reconciliations (id, ran_at, drifts, report) VALUES ($1, now() - $2::interval, $3, '{}')",
                uuid7(),
                age,
                drifts,
            )


async def _asking(connection: Any) -> int:
    """Returns the readers waiting for the processes table in this database; the heartbeat waits to write."""
    query = """SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE d.datname = current_database() AND relation = 'processes'::regclass
          AND mode = 'AccessShareLock' AND NOT granted"""
    return int(await connection.fetchval(query))


async def test_what_is_known_is_said_and_nothing_is_made_up(api: Api) -> None:
    assert _read(await api.http.get("/metrics")) == QUIET


async def test_the_numbers_are_those_of_the_books(api: Api) -> None:
    await _some_trouble(api.books)

    found = _read(await api.http.get("/metrics"))

    assert 60 <= found.pop("naka_reconcile_age_seconds") < 70
    assert found == QUIET | {"naka_open_requests": 3, "naka_open_requests_overdue": 1, "naka_reconcile_drifts": 2}


@pytest.fixture
def _a_long_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine fifty responses may take longer than a reading is cached."""
    monkeypatch.setattr(metrics, "_TTL_S", 600)


@pytest.mark.slow
@pytest.mark.usefixtures("_a_long_while")
async def test_postgres_is_asked_once_however_many_scrape(api: Api) -> None:
    async with api.books.connection() as connection, connection.transaction():
        # Whoever reads waits here: so all fifty have to ask before any is answered.
        await connection.execute("LOCK TABLE processes IN ACCESS EXCLUSIVE MODE")
        scrapes = [asyncio.create_task(api.http.get("/metrics")) for _ in range(50)]
        await until(lambda: _asking(connection))
        assert await _asking(connection) == 1
    assert [_read(await scrape) for scrape in scrapes] == [QUIET] * len(scrapes)

    await _some_trouble(api.books)
    assert _read(await api.http.get("/metrics")) == QUIET, "kept for a while"


@pytest.mark.slow
@pytest.mark.chaos
async def test_postgres_away_is_a_scrape_that_fails(
    private_postgres: Callable[..., Postgres], settings: Settings
) -> None:
    postgres = private_postgres()
    url = await asyncio.to_thread(servers.migrated, postgres.url)
    app = create_app(settings.model_copy(update={"database_url": url}))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://naka.test") as http,
    ):
        await asyncio.to_thread(postgres.stop)
        away = await http.get("/metrics")
        await asyncio.to_thread(postgres.start)
        back = await http.get("/metrics")

    assert (away.status_code, away.headers["content-type"]) == (503, "application/problem+json")
    assert away.json()["code"] == "unavailable"
    assert "naka_open_requests" in _read(back)
