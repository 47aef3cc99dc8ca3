"""Two processes share a socket: whichever a scrape reaches says what both did, and not how a dead one stood."""

import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metering.quota.limits import LimitSet
from tests.harness import Account, Api, Books, chat, client, scripted

CHATS, REFUSALS = 3, 2
"""The requests per process."""
BLOCKED = '{code="blocked",scope="none",window="none"}'


@contextmanager
def _asleep(api: Api) -> Iterator[None]:
    """Pauses the process, so that the other one answers."""
    api.send(signal.SIGSTOP)
    try:
        yield
    finally:
        api.send(signal.SIGCONT)


async def _scrape(url: str) -> dict[str, float]:
    """Returns the values by series."""
    async with client(url) as http:
        text = (await http.get("/metrics")).text
    return {series: float(value) for series, value in re.findall(r"^(naka_\S+) (\S+)$", text, re.MULTILINE)}


async def _ask(url: str, account: Account, blocked: Account) -> None:
    """Sends chats, requests that a limit refuses, one wrong key, and one that the provider refuses."""
    async with client(url) as http:
        for _ in range(CHATS):
            assert (await chat(http, account)).done
        for _ in range(REFUSALS):
            assert (await chat(http, blocked)).status == 429
        assert (await http.post("/chat", json={"message": "hi"}, headers={"x-api-key": "wrong"})).status_code == 401
        assert (await chat(http, account, scripted(status=400))).status == 502


def _agree(found: dict[str, float], model: str, sums: Counter[str]) -> None:
    assert found[f'naka_requests_total{{model="{model}",outcome="completed"}}'] == 2 * CHATS
    for name in ("input", "output"):
        assert found[f'naka_tokens_total{{class="{name}",model="{model}"}}'] == sums[f"{name}_tokens"]
    assert found[f'naka_provider_cost_nano_usd_total{{model="{model}"}}'] == sums["cost_nano_usd"]
    assert found["naka_time_to_first_token_seconds_count"] == 2 * CHATS
    for name in ("naka_settlement_lag_seconds", "naka_request_duration_seconds"):
        assert found[f"{name}_count"] == 2 * CHATS + 2, "the failed ones as well"
    assert found["naka_quota_refusals_total" + BLOCKED] == 2 * REFUSALS
    assert found['naka_requests_turned_away_total{error="Unauthenticated"}'] == 2
    assert found['naka_upstream_errors_total{kind="upstream_rejected"}'] == 2


@pytest.mark.slow
async def test_a_scrape_of_any_says_what_all_did(
    story_environment: dict[str, str], books: Books, tmp_path: Path
) -> None:
    folder = tmp_path / "metrics"
    settings = story_environment | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    account, blocked = await books.account(), await books.account(limits=LimitSet(concurrency=0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one, two = (Api(settings, tmp_path / f"{name}.log", listener=listener) for name in ("one", "two"))
        try:
            for api in (one, two):
                api.await_listening()
            for other in (two, one):
                with _asleep(other):
                    await _ask(one.url, account, blocked)
            rows = await books.settled(account, 2 * CHATS + 2)
            sums = await books.sums("usage_requests", account.tenant_id)
            for other in (two, one):
                with _asleep(other):
                    _agree(await _scrape(one.url), rows[0]["model"], sums)
            two.kill()
            found = await _scrape(one.url)
            _agree(found, rows[0]["model"], sums)
            assert found["naka_running_requests"] == 0
            assert list(folder.glob(f"gauge_live*_{two.process.pid}.db")) == [], "how it stood died with it"
        finally:
            two.stop()
            assert one.stop() == 0
    assert list(folder.glob("gauge_live*.db")) == []
