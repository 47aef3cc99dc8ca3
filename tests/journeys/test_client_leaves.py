"""The client leaves: the provider is hung up on at once, and what was used until then is in the books, once."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from metering.limits import Limit, LimitSet, Meter
from metering.windows import WindowKind
from tests.harness import Account, Api, Books, Simulator, chat, scripted

AT_ONCE_MS = 1000  # it is a few milliseconds; a busy CI machine may be slow
PIECES = ["Fourteen chars", " and", " 🧾🧾", " then nothing"]
CACHED: dict[str, Any] = {"cache_read_input_tokens": 3, "cache_creation_5m": 5, "cache_creation_1h": 7}
LIMITS = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 1_000_000),), concurrency=1)
COUNTED = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")


class Caller:
    """A client on a socket of its own, that can hang up whenever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def ask(cls, api: Api, account: Account, message: str) -> "Caller":
        body = json.dumps({"message": message}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        head = f"POST /chat HTTP/1.1\r\nhost: naka\r\nauthorization: Bearer {account.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return cls(reader, writer)

    async def hears(self, words: str) -> None:
        """Returns once the words have arrived."""
        async with asyncio.timeout(20):
            await self._reader.readuntil(words.encode())

    async def leave(self) -> int:
        """Hangs up; when, in Unix milliseconds."""
        left_ms = time.time_ns() // 1_000_000
        self._writer.close()
        await self._writer.wait_closed()
        return left_ms


async def eventually(check: Callable[[], Awaitable[Any]], *, within_s: float = 10) -> Any:
    """What `check` returns, once that is true."""
    deadline = time.monotonic() + within_s
    while not (found := await check()):
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.01)
    return found


async def served(simulator: Simulator, ref: str, *, ended: bool) -> dict[str, Any]:
    """The ledger's one entry of `ref`, once it is there, or once it has ended."""

    async def look() -> dict[str, Any] | None:
        rows = await asyncio.to_thread(simulator.ledger, ref)
        assert len(rows) <= 1
        return rows[0] if rows and (rows[0]["state"] != "open" or not ended) else None

    entry: dict[str, Any] = await eventually(look)
    return entry


async def assert_nothing_is_held(http: httpx2.AsyncClient, account: Account) -> int:
    """The hold of the request has gone, and with it the only place there is; answers the tokens used."""

    async def look() -> dict[str, Any] | None:
        standing: dict[str, Any] = (await http.get("/v1/limits", headers=account.headers)).json()
        return standing if standing["concurrency"]["active"] == 0 else None

    standing = await eventually(look)
    (window,) = standing["windows"]
    assert window["held"] == 0
    used: int = window["used"]
    return used


async def test_before_the_head(api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator) -> None:
    account = await books.account(limits=LIMITS)
    ref = account.key_id.hex
    caller = await Caller.ask(api, account, scripted(ref=ref, head_delay_ms=60_000, **CACHED))
    await served(simulator, ref, ended=False)

    left_ms = await caller.leave()

    entry = await served(simulator, ref, ended=True)
    assert entry["state"] == "client_gone"
    assert entry["ended_ms"] - left_ms < AT_ONCE_MS
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"], row["requests"]) == ("client_gone", "final", 0)
    assert [row[name] for name in COUNTED] == [0, 0, 0, 0, 0]
    assert row["cost_nano_usd"] == 0
    assert await assert_nothing_is_held(http, account) == 0
    assert (await chat(http, account)).done


@pytest.mark.parametrize("heard", [0, 1, 2, len(PIECES)])
async def test_after_some_pieces(
    api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator, heard: int
) -> None:
    account = await books.account(limits=LIMITS)
    ref = account.key_id.hex
    script = {"ref": ref, "pieces": PIECES, "stall_after": heard, "start_output_tokens": 8, **CACHED}
    caller = await Caller.ask(api, account, scripted(**script))
    await caller.hears("x-request-id")
    for piece in PIECES[:heard]:
        await caller.hears(f"data: {piece}\n\n")

    left_ms = await caller.leave()

    entry = await served(simulator, ref, ended=True)
    assert (entry["state"], entry["pieces_sent"]) == ("client_gone", heard)
    assert entry["ended_ms"] - left_ms < AT_ONCE_MS
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"], row["requests"]) == ("client_gone", "estimated", 1)
    chars = len("".join(PIECES[:heard]))
    assert row["output_chars"] == chars
    assert [row[name] for name in COUNTED] == [entry["input_tokens"], 3, 5, 7, -(-chars // 4)]
    rates = (3_000, 300, 3_750, 6_000, 15_000)
    assert row["cost_nano_usd"] == sum(row[name] * rate for name, rate in zip(COUNTED, rates, strict=True))
    assert (row["upstream_request_id"], row["upstream_message_id"]) == (entry["request_id"], entry["message_id"])
    assert await assert_nothing_is_held(http, account) == sum(row[name] for name in COUNTED)
    assert (await chat(http, account)).done


async def test_after_the_upstream_has_ended(
    api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator
) -> None:
    account = await books.account(limits=LIMITS)
    ref = account.key_id.hex
    async with books.connection() as keeper:
        # `done` waits for the commit, and the commit waits for us: the client leaves exactly in between.
        transaction = keeper.transaction()
        caller = await Caller.ask(api, account, scripted(ref=ref, pieces=["a", "b"], first_delay_ms=500))
        await caller.hears("x-request-id")
        await transaction.start()
        query = "SELECT FROM usage_requests WHERE tenant_id = $1 FOR UPDATE"
        await keeper.execute(query, account.tenant_id)
        await caller.hears("data: b\n\n")
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
    assert await assert_nothing_is_held(http, account) == entry["input_tokens"] + entry["output_tokens"]
    assert (await chat(http, account)).done


async def test_many_leave_at_once_and_the_rest_is_served(
    api: Api, http: httpx2.AsyncClient, books: Books, simulator: Simulator
) -> None:
    leaving, staying = await books.account(), await books.account()
    callers = [
        await Caller.ask(api, leaving, scripted(ref=leaving.key_id.hex, pieces=["word"], stall_after=1))
        for _ in range(20)
    ]
    for caller in callers:
        await caller.hears("data: word\n\n")
    stayed = [asyncio.create_task(chat(http, staying, scripted(words=40, piece_delay_ms=5))) for _ in range(5)]

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
