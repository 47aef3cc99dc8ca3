"""Redis is killed, or hangs, under load: answers are slower, limits hold exactly, and it recovers.

Both stories run concurrently, each with its own API and Valkey, since they mostly wait.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest
from redis.asyncio import Redis

from core.tenancy.accounts import find_key, revoke_key
from metering.admission.redis_scripts import tenant_key
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from sandbox.valkey import Valkey
from tests.harness import ACTOR, TOKEN_FIELDS, Account, Api, Books, Simulator, chat, client, scripted

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
LIMIT = 4_000
AT_ONCE = 100
SMALLEST_GRANT = 64
SLOWEST_S = 12
BACK_WITHIN_S = 20
Fault = Callable[[Valkey], object]


async def test_redis_dies_or_hangs_and_comes_back(
    start_api: Callable[..., Api], private_valkey: Callable[..., Valkey], books: Books, simulator: Simulator
) -> None:
    faults: list[tuple[Fault, Fault]] = [(Valkey.kill, Valkey.start), (Valkey.pause, Valkey.resume)]
    places = []
    for _ in faults:
        valkey = private_valkey(appendonly="no")
        places.append((start_api(REDIS_URL=valkey.url), valkey))
    async with asyncio.TaskGroup() as stories:
        for (api, valkey), (harm, heal) in zip(places, faults, strict=True):
            stories.create_task(_story(api, valkey, harm, heal, books, simulator))


async def _story(api: Api, valkey: Valkey, harm: Fault, heal: Fault, books: Books, simulator: Simulator) -> None:
    calm = await books.account(limits=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 10_000_000),)))
    tight = await books.account(limits=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, LIMIT),), concurrency=40))
    victim = await books.account()
    async with client(api.url) as http:
        for account in (calm, victim):
            assert (await chat(http, account)).done
        async with _asking(http, calm) as answers:
            await asyncio.to_thread(harm, valkey)
            try:
                await _race(http, tight, books, simulator)
                await _revoke(http, victim, books)
                assert (await http.get("/readyz")).json()["redis"] is False
            finally:
                await asyncio.to_thread(heal, valkey)
            asked = len(answers)
            await _back(valkey, calm, books)
            assert len(answers) > asked
        assert Counter(status for status, _ in answers) == {200: len(answers)}
        assert max(took_s for _, took_s in answers) < SLOWEST_S
        used = await _used(books, calm)
        assert await _standing(http, calm) == used
        assert used[1] == 0
        assert (await http.get("/readyz")).json()["redis"] is True


@asynccontextmanager
async def _asking(http: httpx2.AsyncClient, account: Account) -> AsyncIterator[list[tuple[int, float]]]:
    """Sends requests from before the fault until the end of the block, and records (status, seconds)."""
    answers: list[tuple[int, float]] = []
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            began_s = time.monotonic()
            answer = await chat(http, account, scripted(words=3))
            answers.append((answer.status, time.monotonic() - began_s))
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask())
        try:
            yield answers
        finally:
            over.set()


async def _race(http: httpx2.AsyncClient, account: Account, books: Books, simulator: Simulator) -> None:
    """Uses up the limit with a hundred callers: never exceeded, and nearly used up."""
    ref = account.key_id.hex
    message = scripted(ref=ref, words=60)

    async def ask() -> None:
        while True:
            answer = await chat(http, account, message)
            if answer.status == 200:
                continue
            assert answer.status == 429, answer.error
            assert answer.error is not None
            if answer.error["code"] == "limit_reached":
                return
            assert answer.retry_after_s <= 2
            await asyncio.sleep(0.5)

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    served = simulator.ledger(ref)
    used = sum(entry["input_tokens"] + entry["output_tokens"] for entry in served)
    assert (used, 0) == await _used(books, account)
    smallest = len(message.encode()) + len(b"You are a concise assistant.") + 32 + SMALLEST_GRANT
    assert LIMIT - smallest < used <= LIMIT
    assert await _standing(http, account) == (used, 0)


async def _revoke(http: httpx2.AsyncClient, account: Account, books: Books) -> None:
    """Revokes a key that the API has cached while Redis is unreachable; Postgres refuses it."""
    async with books.database.session() as session:
        await revoke_key(session, ACTOR, await find_key(session, account.key_id, tenant_id=None))
    answer = await chat(http, account)
    assert answer.status == 401
    assert len(await books.requests(account)) == 1


async def _back(valkey: Valkey, account: Account, books: Books) -> None:
    """Returns once Redis admits the tenant again, and its hash is there."""
    query = "SELECT epoch, fallback_until FROM tenant_epochs WHERE tenant_id = $1"
    deadline = time.monotonic() + BACK_WITHIN_S
    async with Redis.from_url(valkey.url) as redis:
        while True:
            (row,) = await books.fetch(query, account.tenant_id)
            built = await redis.hget(tenant_key(account.tenant_id), "e")
            if row["fallback_until"] is None and built is not None and int(built) == row["epoch"]:
                return
            assert time.monotonic() < deadline, (dict(row), built)
            await asyncio.sleep(0.1)


async def _used(books: Books, account: Account) -> tuple[int, int]:
    """Returns the tokens used and held, by the rows."""
    rows = await books.requests(account)
    held = sum(row["held_prompt_tokens"] + row["held_output_tokens"] for row in rows if row["state"] == "open")
    return sum(row[name] for row in rows for name in TOKEN_FIELDS), held


async def _standing(http: httpx2.AsyncClient, account: Account) -> tuple[int, int]:
    """Returns the same by `/v1/limits`."""
    answer = await http.get("/v1/limits", headers=account.headers)
    assert answer.status_code == 200, answer.text
    (window,) = answer.json()["windows"]
    return window["used"], window["held"]
