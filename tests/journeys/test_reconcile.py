"""An operator proves the books: against themselves, and against what Anthropic says of the same days."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.daemon import free_port
from tests.api.cli.test_cli import Naka
from tests.harness import (
    LEDGER_FIELDS,
    SIMULATOR_KEY,
    TOKEN_FIELDS,
    Account,
    Api,
    Books,
    Simulator,
    chat,
    client,
    environment,
    scripted,
)

ADMIN_KEY = f"admin-{SIMULATOR_KEY}"


@pytest.fixture
def own_simulator() -> Iterator[Simulator]:
    """A simulator of its own: the report covers the whole organization."""
    simulator = Simulator()
    yield simulator
    simulator.stop()


@pytest.fixture
def settings(database_url: str, redis_url: str, own_simulator: Simulator) -> dict[str, str]:
    return environment(database_url, redis_url, own_simulator.url, ANTHROPIC_ADMIN_KEY=ADMIN_KEY)


@pytest.fixture
def naka(settings: dict[str, str], tmp_path: Path) -> Naka:
    return Naka(tmp_path, settings)


@pytest.fixture
async def own_books(database_url: str) -> AsyncIterator[Books]:
    books = Books(database_url)
    yield books
    await books.close()


@pytest.fixture
async def own_http(start_api: Callable[..., Api], settings: dict[str, str]) -> AsyncIterator[httpx2.AsyncClient]:
    api = await asyncio.to_thread(start_api, **settings)
    async with client(api.url) as made:
        yield made


async def prove(naka: Naka, *words: str, code: int, **more: str) -> Any:
    done = await asyncio.to_thread(naka.run, "reconcile", "--json", *words, **more)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert ADMIN_KEY not in done.stdout + done.stderr
    return json.loads(done.stdout)


def tokens(rows: list[dict[str, Any]], side: str) -> Counter[str]:
    """Sums all days and models, since a test may pass midnight."""
    return sum((Counter(row[side]) for row in rows), Counter[str]())


@pytest.mark.slow
async def test_the_books_are_proved_and_mended(
    naka: Naka, own_books: Books, own_http: httpx2.AsyncClient, own_simulator: Simulator
) -> None:
    accounts = [await own_books.account() for _ in range(2)]
    scripts: list[dict[str, Any]] = [
        {"words": 40},
        {"words": 11, "cache_read_input_tokens": 300},
        {"words": 5, "cache_creation_5m": 70, "cache_creation_1h": 900},
        {"words": 60, "model": "claude-sonnet-5"},
    ]
    asked = [chat(own_http, account, scripted(**script)) for account in accounts for script in scripts]
    assert all(answer.done for answer in await asyncio.gather(*asked))

    report = await prove(naka, code=0)
    assert (report["found"]["drifts"], report["found"]["tenants"], report["left"]) == (0, 2, None)
    served = own_simulator.ledger()
    ledger = Counter(
        {ours: sum(row[theirs] for row in served) for ours, theirs in zip(TOKEN_FIELDS, LEDGER_FIELDS, strict=True)}
    )
    assert tokens(report["provider"], "ours") == tokens(report["provider"], "theirs") == ledger
    assert {row["model"] for row in report["provider"]} == {"claude-sonnet-4-6", "claude-sonnet-5"}

    await _elsewhere(own_simulator)
    report = await prove(naka, code=0)
    (differs,) = [row["difference"] for row in report["provider"] if row["difference"]]
    beyond = own_simulator.ledger()[-1]
    assert differs == {"input_tokens": beyond["input_tokens"], "output_tokens": 33}

    await _mended(naka, own_books, accounts[0])


async def _elsewhere(simulator: Simulator) -> None:
    """Sends a request to Anthropic outside of Naka."""
    headers = {"x-api-key": SIMULATOR_KEY, "anthropic-version": "2023-06-01"}
    body = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": scripted(words=33)}],
    }
    async with client(simulator.url) as http:
        assert (await http.post("/v1/messages", json=body, headers=headers)).status_code == 200


async def _mended(naka: Naka, books: Books, account: Account) -> None:
    """Rollup, meter and Redis are damaged, then repaired by an operator who gives a reason."""
    before = await books.sums("usage_daily", account.tenant_id)
    await books.fetch("UPDATE usage_daily SET input_tokens = 0 WHERE tenant_id = $1", account.tenant_id)
    await books.fetch("UPDATE usage_meters SET requests = requests + 5 WHERE tenant_id = $1", account.tenant_id)
    report = await prove(naka, code=2)
    assert {name: check["drifts"] for name, check in report["found"]["checks"].items() if name != "rollup"} == {
        "meters": 1,
        "redis": 0,
        "open": 0,
    }
    table = await asyncio.to_thread(naka.run, "reconcile")
    assert (table.returncode, "requests=+5" in table.stdout) == (2, True)
    (line,) = (await asyncio.to_thread(naka.fails, "reconcile", "--repair-meters")).splitlines()
    assert "--reason" in line
    report = await prove(naka, "--repair", code=2)  # the meter is left
    assert report["left"]["checks"]["rollup"]["drifts"] == 0
    slug = (await books.fetch("SELECT slug FROM tenants WHERE id = $1", account.tenant_id))[0]["slug"]
    report = await prove(naka, "--repair-meters", "--reason", "test", "--tenant", slug, code=0)
    assert (report["mended"], report["found"]["tenants"], report["provider"]) == ({"meters": 1}, 1, None)
    assert await books.sums("usage_daily", account.tenant_id) == before
    assert await books.sums("usage_meters", account.tenant_id) == before
    assert (await books.fetch("SELECT count(*) FROM reconciliations"))[0][0] == 8


async def test_what_cannot_be_checked_is_said(naka: Naka, own_books: Books) -> None:
    await own_books.account()
    report = await prove(naka, code=3, ANTHROPIC_ADMIN_KEY="sk-ant-admin-wrong")
    assert "401" in report["provider_not_asked"]
    nowhere = f"127.0.0.1:{free_port()}"
    report = await prove(naka, code=3, REDIS_URL=f"redis://{nowhere}")
    assert (report["found"]["drifts"], report["found"]["whole"]) == (0, False)
    report = await prove(naka, code=0, REDIS_URL="", ANTHROPIC_ADMIN_KEY="")
    assert report["found"]["checks"]["redis"]["not_done"]
    done = await asyncio.to_thread(naka.run, "reconcile", DATABASE_URL=f"postgresql://a:b@{nowhere}/c")
    assert (done.returncode, done.stdout) == (3, "")
    assert "--since" in await asyncio.to_thread(naka.fails, "reconcile", "--since", "2026-13")
