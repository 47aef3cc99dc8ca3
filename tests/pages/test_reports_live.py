"""The present minute: who sees what of it, one read for all who look, and an end with the session."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Collection
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from api.pages.reports import live as page
from api.services.usage import live
from api.services.usage.live import LiveFeed, Readings
from core.clock import now_ms
from core.errors import Unavailable
from core.ids import uuid7
from core.tenancy.principal import Scope
from metering.journal.records import Outcome
from metering.reports.live_usage import LiveUsage, read_live_usage
from tests.answers import parse_sse
from tests.api.conftest import Api
from tests.harness import Account
from tests.pages.conftest import SignIn
from tests.pages.reported import settle, used

DEADLINE_MS = 600_000


async def running(api: Api, account: Account, at_ms: int) -> None:
    await api.books.fetch(
        "INSERT INTO usage_requests (tenant_id, id, user_id, state) VALUES ($1, $2, $3, 'open')",
        account.tenant_id,
        uuid7(at_ms),
        account.user_id,
    )


async def test_the_minute_counts_what_runs_began_and_ended(api: Api) -> None:
    mine, theirs = await api.books.account(), await api.books.account()
    draw = random.Random(3)
    found = [used(draw, mine, now_ms() - 5_000) for _ in range(40)]
    long_ago = [used(draw, mine, now_ms() - 90_000), used(draw, theirs, now_ms() - 3_000)]
    await settle(api.books, [*found, *long_ago])
    too_old = used(draw, mine, now_ms() - 120_000)
    await settle(api.books, [too_old])
    await api.books.fetch("UPDATE usage_requests SET settled_at = settled_at - interval '61 s' WHERE id = $1",
                          too_old.settlement.id)  # fmt: skip
    for seconds_ago in (1, 70, 3_000):  # the last of them is nobody's any more
        await running(api, mine, now_ms() - seconds_ago * 1000)

    async def read(watched: Collection[UUID | None]) -> Readings:
        async with api.books.connection() as connection:
            return await read_live_usage(connection, watched, longest_ms=DEADLINE_MS)

    settled = [each.settlement for each in [*found, long_ago[0]]]
    expected = LiveUsage(
        running=2,
        admitted=len(found) + 1,
        settled=len(settled),
        errors=sum(each.outcome in (Outcome.UPSTREAM_BROKE, Outcome.UPSTREAM_REFUSED) for each in settled),
        tokens=sum(each.usage.prompt_tokens + each.usage.output_tokens for each in settled),
        cost_nano_usd=sum(each.cost_nano_usd for each in settled),
    )
    nobody = uuid4()
    assert await read([mine.tenant_id, nobody]) == {mine.tenant_id: expected, nobody: LiveUsage()}
    both = await read([None, theirs.tenant_id])
    assert both[None] == expected + both[theirs.tenant_id]
    assert both[theirs.tenant_id].settled == 1


async def test_everybody_shares_one_read_a_second_while_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0)
    monkeypatch.setattr(live, "_SHARE", 0)
    asked: list[Collection[UUID | None]] = []
    here, there, answers = uuid4(), uuid4(), asyncio.Semaphore(0)

    async def read(watched: Collection[UUID | None]) -> Readings:
        asked.append(watched)
        number = len(asked)
        await answers.acquire()
        if number == 3:
            raise Unavailable("the database does not answer")
        return {tenant_id: LiveUsage(running=number) for tenant_id in watched}

    shared = LiveFeed(read)
    looking = [shared.watch(tenant_id) for tenant_id in (here, here, there)]

    async def next_of(*watchers: AsyncGenerator[LiveUsage | None, None]) -> list[LiveUsage | None]:
        """What they see of the next read, which is answered once all of them wait for it."""
        waiting = asyncio.gather(*(anext(each) for each in watchers))
        for _ in range(5):
            await asyncio.sleep(0)
        answers.release()
        return await asyncio.wait_for(waiting, 10)

    assert await next_of(*looking) == [LiveUsage(running=1)] * 3
    assert await next_of(*looking) == [LiveUsage(running=2)] * 3
    assert await next_of(*looking) == [None, None, None], "no reading, and no end"
    assert await next_of(looking[0]) == [LiveUsage(running=4)]
    await looking[0].aclose()
    await looking[1].aclose()
    await next_of(looking[2])
    await next_of(looking[2])
    assert asked[-1] == {there}
    await looking[2].aclose()
    reads = len(asked)
    answers.release()
    await asyncio.sleep(0.05)
    assert len(asked) == reads, "nobody looks"


@pytest.mark.slow
async def test_the_stream_ends_with_the_session(api: Api, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "RECHECK_S", 0)
    monkeypatch.setattr(live, "EVERY_S", 0.05)
    monkeypatch.setattr(live, "_SHARE", 0)
    admin = await api.books.account(scopes=[Scope.TENANT_ADMIN])
    both = (admin, await api.books.account())
    await settle(api.books, [used(random.Random(1), each, now_ms()) for each in both])
    browser = await sign_in(admin)
    body, begun = bytearray(), asyncio.Event()

    async def send(message: Any) -> None:
        body.extend(message.get("body", b""))
        if b"numbers" in body:
            begun.set()

    stream = asyncio.create_task(look(api, browser, send))
    await asyncio.wait_for(begun.wait(), 10)
    name, data = parse_sse(bytes(body))[0]
    assert (name, json.loads(data)["numbers"]["settled"]) == ("message", 1)
    assert (await browser.post("/sign-out")).status_code == 303
    await asyncio.wait_for(stream, 10)
    assert b"event: end" in body
    assert (await browser.get("/reports/live/events")).headers["location"].startswith("/sign-in")


async def look(api: Api, browser: httpx2.AsyncClient, send: Any) -> None:
    """The stream, as a server runs it: httpx's own transport waits for the end of an answer."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/reports/live/events",
        "raw_path": b"/reports/live/events",
        "query_string": b"",
        "headers": [(b"host", b"naka.test"), (b"cookie", cookies.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("naka.test", 80),
    }

    async def receive() -> Any:
        await asyncio.Event().wait()

    await api.app(scope, receive, send)
