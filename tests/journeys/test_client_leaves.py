"""Disconnects: after the head the upstream is closed at once, before it once the prompt's tokens are known.

The usage until then is settled once, and no limit is exceeded by disconnecting.
"""

import asyncio
import statistics
from typing import Any

import httpx2
import pytest

from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.harness import Api, Books, Simulator, chat, scripted
from tests.journeys.callers import Caller, eventually, limit_status_when_free, sent, served
from tests.journeys.forms import Form, every_form

AT_ONCE_MS = 100
BEFORE_MS = 700
NEVER_LATER_MS = 1000  # a busy CI machine may be slow once
PIECES = ["Fourteen chars", " and", " 🧾🧾", " then nothing"]
CACHED: dict[str, Any] = {"cache_read_input_tokens": 3, "cache_creation_5m": 5, "cache_creation_1h": 7}
LIMITS = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 1_000_000),), concurrency=1)
COUNTED = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")


@every_form
async def test_before_the_head(
    api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator, form: Form
) -> None:
    account = await books.account(limits=LIMITS)
    ref = account.key_id.hex
    script = {"ref": ref, "head_delay_ms": BEFORE_MS, "stall_after": 0, **CACHED}
    caller = await Caller.ask(api, account, scripted(**script), form)
    await served(simulator, ref, ended=False)

    await caller.leave()

    entry = await served(simulator, ref, ended=True)
    assert entry["state"] == "client_gone"
    assert BEFORE_MS - 50 < entry["ended_ms"] - entry["started_ms"] < BEFORE_MS + NEVER_LATER_MS
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"], row["requests"]) == ("client_gone", "counted", 1)
    assert [row[name] for name in COUNTED] == [entry["input_tokens"], 3, 5, 7, 0]
    assert (row["upstream_request_id"], row["upstream_message_id"]) == (entry["request_id"], entry["message_id"])
    assert (await limit_status_when_free(http, account))["used"] == entry["input_tokens"] + 3 + 5 + 7
    assert (await form.ask(http, account)).done


@every_form
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "reset"])
async def test_hanging_up_before_the_head_passes_no_limit(
    api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator, form: Form, *, reset: bool
) -> None:
    account = await books.account(limits=LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 3),)))
    ref = account.key_id.hex
    message = scripted("x" * 5_000, ref=ref, head_delay_ms=BEFORE_MS, stall_after=0)
    callers = [await Caller.ask(api, account, message, form) for _ in range(8)]
    await eventually(lambda: _several(simulator, ref, 3))

    for caller in callers:
        await caller.leave(reset=reset)

    rows = await books.settled(account, 3)
    entries = await asyncio.to_thread(simulator.ledger, ref)
    assert [row["requests"] for row in rows] == [1] * 3
    assert sorted(row["input_tokens"] for row in rows) == sorted(entry["input_tokens"] for entry in entries)
    refused = await chat(http, account)
    assert refused.error is not None
    assert (refused.status, refused.error["code"]) == (429, "limit_reached")


async def _several(simulator: Simulator, ref: str, count: int) -> bool:
    return len(await asyncio.to_thread(simulator.ledger, ref)) == count


@every_form
@pytest.mark.parametrize("heard", [0, 1, 2, len(PIECES)])
async def test_after_some_pieces(
    api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator, heard: int, form: Form
) -> None:
    account = await books.account(limits=LIMITS)
    ref = account.key_id.hex
    script = {"ref": ref, "pieces": PIECES, "stall_after": heard, "start_output_tokens": 8, **CACHED}
    caller = await Caller.ask(api, account, scripted(**script), form)
    if form.streams:
        await caller.hears("x-request-id")
        for piece in PIECES[:heard]:
            await caller.hears(form.frame_end(piece))
    else:
        await sent(simulator, ref, heard)

    left_ms = await caller.leave()

    entry = await served(simulator, ref, ended=True)
    assert (entry["state"], entry["pieces_sent"]) == ("client_gone", heard)
    assert entry["ended_ms"] - left_ms < NEVER_LATER_MS
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"], row["requests"]) == ("client_gone", "counted", 1)
    assert row["output_chars"] == len("".join(PIECES[:heard]))
    assert [row[name] for name in COUNTED] == [entry["input_tokens"], 3, 5, 7, entry["output_tokens"]]
    rates = (3_000, 300, 3_750, 6_000, 15_000)
    assert row["cost_nano_usd"] == sum(row[name] * rate for name, rate in zip(COUNTED, rates, strict=True))
    assert (row["upstream_request_id"], row["upstream_message_id"]) == (entry["request_id"], entry["message_id"])
    assert (await limit_status_when_free(http, account))["used"] == sum(row[name] for name in COUNTED)
    assert (await form.ask(http, account)).done


@pytest.mark.slow
@every_form
async def test_after_the_upstream_has_ended(
    api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator, form: Form
) -> None:
    account = await books.account(limits=LIMITS)
    ref = account.key_id.hex
    async with books.connection() as keeper:
        # The end waits for the commit, and the commit waits for us: the client leaves exactly in between.
        transaction = keeper.transaction()
        caller = await Caller.ask(api, account, scripted(ref=ref, pieces=["a", "b"], first_delay_ms=1500), form)
        await served(simulator, ref, ended=False)
        await transaction.start()
        query = "SELECT FROM usage_requests WHERE tenant_id = $1 FOR UPDATE"
        await keeper.execute(query, account.tenant_id)
        if form.streams:
            await caller.hears(form.frame_end("b"))
        entry = await served(simulator, ref, ended=True)
        await asyncio.sleep(0.2)
        await caller.leave()
        await asyncio.sleep(0.2)
        assert [row["state"] for row in await books.requests(account)] == ["open"]
        await transaction.rollback()

    assert entry["state"] == "completed"
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"], row["stop_reason"]) == ("completed", "final", "end_turn")
    assert (row["input_tokens"], row["output_tokens"]) == (entry["input_tokens"], entry["output_tokens"])
    assert (await limit_status_when_free(http, account))["used"] == entry["input_tokens"] + entry["output_tokens"]
    assert (await form.ask(http, account)).done


@every_form
async def test_many_leave_at_once_and_the_rest_is_served(
    api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator, form: Form
) -> None:
    leaving, staying = await books.account(), await books.account()
    callers = [
        await Caller.ask(api, leaving, scripted(ref=leaving.key_id.hex, pieces=["word"], stall_after=1), form)
        for _ in range(20)
    ]
    if form.streams:
        for caller in callers:
            await caller.hears(form.frame_end("word"))
    else:
        await eventually(lambda: _all_sent(simulator, leaving.key_id.hex, 20))
    stayed = [asyncio.create_task(form.ask(http, staying, scripted(words=40, piece_delay_ms=5))) for _ in range(5)]

    await asyncio.gather(*(caller.leave() for caller in callers))

    assert [answer.done for answer in await asyncio.gather(*stayed)] == [True] * 5
    rows = await books.settled(leaving, 20)
    assert {(row["outcome"], row["output_tokens"]) for row in rows} == {("client_gone", 1)}
    sums = {name: sum(row[name] for row in rows) for name in COUNTED}
    for table in ("usage_requests", "usage_daily", "usage_meters"):
        booked = await books.sums(table, leaving.tenant_id)
        assert {name: booked[name] for name in COUNTED} == sums
    entries = await asyncio.to_thread(simulator.ledger, leaving.key_id.hex)
    assert [entry["state"] for entry in entries] == ["client_gone"] * 20


async def _all_sent(simulator: Simulator, ref: str, count: int) -> bool:
    """Whether so many requests have sent their only piece, and it had time to arrive."""
    entries = await asyncio.to_thread(simulator.ledger, ref)
    await asyncio.sleep(0.3)
    return sum(int(entry["pieces_sent"]) for entry in entries) == count


PLACES = {
    # how many pieces the provider sends, and the client has heard when it leaves
    "before the first piece": 0,
    "while the upstream is silent": 1,
    "after the last piece": 2,
}


@pytest.mark.slow
@every_form
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "reset"])
@pytest.mark.parametrize("place", PLACES)
async def test_the_provider_is_hung_up_on_at_once(
    api: Api, books: Books, simulator: Simulator, place: str, form: Form, *, reset: bool
) -> None:
    pieces = ["one", "two"]
    heard = PLACES[place]
    account = await books.account()

    async def leave(number: int) -> int:
        ref = f"{account.key_id.hex}-{number}"
        caller = await Caller.ask(api, account, scripted(ref=ref, pieces=pieces, stall_after=heard), form)
        if not form.streams:
            await sent(simulator, ref, heard)
        elif heard:
            await caller.hears(form.frame_end(pieces[heard - 1]))
        else:
            await caller.hears("x-request-id")
        await served(simulator, ref, ended=False)
        left_ms = await caller.leave(reset=reset)
        entry = await served(simulator, ref, ended=True)
        assert entry["state"] == "client_gone"
        ended_ms: int = entry["ended_ms"]
        return ended_ms - left_ms

    waits_ms = [await leave(number) for number in range(20)]

    print(f"{form.name}, {place}: median {statistics.median(waits_ms)} ms, longest {max(waits_ms)} ms")  # noqa: T201 - to be read
    assert statistics.median(waits_ms) < AT_ONCE_MS
    assert max(waits_ms) < NEVER_LATER_MS
    assert len(await books.settled(account, 20)) == 20
