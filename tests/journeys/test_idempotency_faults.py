"""`Idempotency-Key` when a process dies, pauses or stops, and when Redis is away: one bill per real run."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from sandbox.valkey import Valkey
from tests.answers import Answer
from tests.harness import Account, Api, Books, Simulator, chat, client, scripted
from tests.journeys.callers import Caller
from tests.journeys.forms import Form, every_form
from tests.journeys.idempotent import ON, ask, ask_each, key_lines, until

pytestmark = pytest.mark.chaos
RETRIES = 100  # and as many afterwards
STALLS = {"piece_delay_ms": 20, "stall_after": 5, "fail_times": 1}
"""The first run stays in the middle of its answer until its process ends; later ones are whole."""


async def ledger(simulator: Simulator, account: Account) -> list[dict[str, Any]]:
    """The messages served for the account."""
    return await asyncio.to_thread(simulator.ledger, account.key_id.hex)


async def served(simulator: Simulator, account: Account, count: int = 1) -> None:
    """Returns once so many messages are being served."""

    async def look() -> bool:
        return len(await ledger(simulator, account)) == count

    await until(look)


def whole(answers: list[Any]) -> Answer:
    """Asserts that all are the same whole answer, and returns it."""
    assert all(isinstance(answer, Answer) and answer.done for answer in answers)
    assert len({answer.raw for answer in answers}) == 1
    first: Answer = answers[0]
    return first


@pytest.mark.slow
@every_form
async def test_retries_across_a_killed_process(
    start_api: Callable[..., Api], books: Books, simulator: Simulator, form: Form
) -> None:
    """Killed before its head, then in the middle: 3 runs, 3 bills, and every retry has the whole answer of the last."""
    dying, living = start_api(**ON), start_api(**ON)
    account = await books.account()
    message = scripted(ref=account.key_id.hex, head_delay_ms=1_500, words=60, **STALLS)
    lost = asyncio.create_task(ask_each([dying], 5, account, "k", message, form))
    await served(simulator, account)
    waiting = asyncio.create_task(ask_each([living], RETRIES, account, "k", message, form))
    await asyncio.sleep(0.5)

    dying.kill()

    assert all(isinstance(answer, httpx2.HTTPError) for answer in await lost)
    first = whole(await waiting)
    after = whole(await ask_each([living], RETRIES, account, "k", message, form))
    assert after.raw == first.raw
    assert after.headers["x-request-id"] == first.headers["x-request-id"]
    rows = await books.settled(account, 2)
    assert sorted(row["outcome"] for row in rows) == ["completed", "lost"]
    assert [row["requests"] for row in rows] == [1, 1]
    assert len(await ledger(simulator, account)) == 2


@pytest.mark.slow
@every_form
async def test_killed_in_the_middle_of_an_answer(
    start_api: Callable[..., Api], books: Books, simulator: Simulator, form: Form
) -> None:
    """Those that have a part of the answer are cut off, as without a key; their retries share one more run."""
    dying, living = start_api(**ON), start_api(**ON)
    account = await books.account()
    message = scripted(ref=account.key_id.hex, words=80, **STALLS)
    asked = [asyncio.create_task(ask_each([dying], 10, account, "k", message, form))]
    await served(simulator, account)  # the run is of the process that dies
    asked.append(asyncio.create_task(ask_each([living], 10, account, "k", message, form)))
    await asyncio.sleep(1)

    dying.kill()

    answers = [answer for task in asked for answer in await task]
    if form.streams:
        assert all(isinstance(answer, httpx2.HTTPError) for answer in answers), "a cut answer looks complete"
    else:  # nothing was sent of it, so those at the living process got the next run's
        assert all(isinstance(answer, httpx2.HTTPError) for answer in answers[:10])
        whole(answers[10:])
    whole(await ask_each([living], RETRIES, account, "k", message, form))
    rows = await books.settled(account, 2)
    assert sorted(row["outcome"] for row in rows) == ["completed", "lost"]
    assert len(await ledger(simulator, account)) == 2


async def test_killed_after_done(start_api: Callable[..., Api], books: Books, simulator: Simulator) -> None:
    """A client that has `done` knows that the answer is stored."""
    dying, living = start_api(**ON), start_api(**ON)
    account = await books.account()
    message = scripted(ref=account.key_id.hex, words=20)
    caller = await Caller.ask(dying, account, message, more=key_lines("k"))
    await caller.hears("event: done")
    dying.kill()
    await caller.leave()

    async with client(living.url) as http:
        answer = await ask(http, account, "k", message)

    assert answer.done
    assert answer.headers["idempotency-replayed"] == "true"
    assert len(await ledger(simulator, account)) == 1


@pytest.mark.slow
async def test_a_paused_process_writes_nothing_more(
    start_api: Callable[..., Api], books: Books, simulator: Simulator
) -> None:
    sleeper, living = start_api(**ON), start_api(**ON)
    account = await books.account()
    message = scripted(ref=account.key_id.hex, words=120, piece_delay_ms=40)
    asked = asyncio.create_task(ask_each([sleeper], 1, account, "k", message))
    await served(simulator, account)
    await asyncio.sleep(0.5)
    sleeper.send(signal.SIGSTOP)
    try:
        (second,) = await ask_each([living], 1, account, "k", message)
        if not isinstance(second, Answer):  # it had begun to read the first run's
            (second,) = await ask_each([living], 1, account, "k", message)
    finally:
        sleeper.send(signal.SIGCONT)
    (first,) = await asked

    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert first.done
    assert second.done
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    replayed = whole(await ask_each([sleeper, living], 5, account, "k", message))
    assert replayed.raw == second.raw
    assert replayed.headers["x-request-id"] == second.headers["x-request-id"]
    assert len(await ledger(simulator, account)) == 2


@pytest.mark.slow
async def test_a_fenced_run_without_readers_ends(
    start_api: Callable[..., Api], books: Books, simulator: Simulator
) -> None:
    """Nobody can read it any more, so nobody pays for the rest."""
    sleeper, living = start_api(**ON), start_api(**ON)
    account = await books.account()
    message = scripted(ref=account.key_id.hex, words=400, piece_delay_ms=40)
    caller = await Caller.ask(sleeper, account, message, more=key_lines("k"))
    await served(simulator, account)
    await caller.hears("\n\n")
    await caller.leave()
    await asyncio.sleep(0.5)
    sleeper.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(3)
        retry = await Caller.ask(living, account, message, more=key_lines("k"))
        await served(simulator, account, 2)
    finally:
        sleeper.send(signal.SIGCONT)

    async def left() -> bool:
        state: str = (await ledger(simulator, account))[0]["state"]
        return state == "client_gone"

    await until(left)
    await retry.leave()


@pytest.mark.slow
async def test_a_stop_ends_a_run_without_a_client(
    start_api: Callable[..., Api], books: Books, simulator: Simulator
) -> None:
    """The grace is for it, too; then it is settled, its key is free, and a retry elsewhere runs anew."""
    stopping, living = start_api(SHUTDOWN_GRACE_S="0.5", **ON), start_api(**ON)
    account = await books.account()
    message = scripted(ref=account.key_id.hex, words=60, **STALLS)
    caller = await Caller.ask(stopping, account, message, more=key_lines("k"))
    await served(simulator, account)
    await caller.leave()

    assert await asyncio.to_thread(stopping.stop) == 0

    (row,) = await books.settled(account, 1)
    assert row["outcome"] == "shutdown"
    async with client(living.url) as http:
        answer = await ask(http, account, "k", message)
    assert answer.done
    assert answer.headers["idempotency-replayed"] == "false"


@pytest.mark.slow
async def test_redis_away(start_api: Callable[..., Api], private_valkey: Callable[..., Valkey], books: Books) -> None:
    """With a key it could be billed twice: 503. Without one nothing changes, and a run that began goes on."""
    valkey = private_valkey(appendonly="no")
    api = start_api(REDIS_URL=valkey.url, **ON)
    account = await books.account()
    async with client(api.url) as http:
        assert (await ask(http, account, "before", "hello")).done
        running = asyncio.create_task(ask(http, account, "running", scripted(words=60, piece_delay_ms=40)))
        await asyncio.sleep(1)
        valkey.kill()
        refused = await ask(http, account, "k", "hello")
        assert refused.error is not None
        assert (refused.status, refused.error["code"]) == (503, "unavailable")
        assert refused.retry_after_s > 0
        assert "without it" in refused.error["detail"]
        assert (await chat(http, account)).done
        assert (await running).done
        valkey.start()

        async def back() -> bool:
            return (await ask(http, account, "k", "hello")).done

        await until(back)
    assert [row["state"] for row in await books.requests(account)] == ["settled"] * 4


@pytest.mark.slow
async def test_redis_pauses_for_a_moment_during_a_run(
    start_api: Callable[..., Api], private_valkey: Callable[..., Valkey], books: Books, simulator: Simulator
) -> None:
    """What could not be stored then is stored later, and nothing twice."""
    valkey = private_valkey(appendonly="no")
    api = start_api(REDIS_URL=valkey.url, **ON | {"DEAD_AFTER_S": "20"})
    account = await books.account()
    message = scripted(ref=account.key_id.hex, words=120, piece_delay_ms=40)
    async with client(api.url) as http:
        asked = [asyncio.create_task(ask(http, account, "k", message)) for _ in range(5)]
        await served(simulator, account)
        valkey.pause()
        await asyncio.sleep(1.5)
        valkey.resume()
        whole(await asyncio.gather(*asked))
        whole([await ask(http, account, "k", message)])
    assert len(await ledger(simulator, account)) == 1
