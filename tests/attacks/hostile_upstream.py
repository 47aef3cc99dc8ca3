"""A hostile upstream: each answer ends within its bound, memory stays flat, and every row is settled.

    python -m tests.attacks.hostile_upstream

Endless bodies, heads and streams, slow ones, half characters, names that Postgres rejects; each requested by 12 clients
of an API with short bounds (a deadline of 5 s), by 4 in each form: `/chat`, `/v1/messages` streamed and whole. Prints
the slowest answer, the clients' errors, the settlements and the memory growth. Exits with 1 when a request exceeded its
bounds, a row stayed open, or memory grew by over 192 MB.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests.answers import Answer
from tests.harness import Api, Books, client, environment, running
from tests.journeys.forms import FORMS
from tests.raw_provider import RawProvider, Request, raw_provider

AT_ONCE = 12
DEADLINE_S = 5
LONGEST_S = DEADLINE_S + 20
"""The deadline plus time for a busy machine, which runs the provider, the clients and the server."""
MOST_GROWTH_MB = 64 + 8 * 16
"""Of the 12, 8 may hold an event of 16 MB (`api.gateway.messages.codecs`)."""
SETTINGS = {
    "REQUEST_DEADLINE_S": str(DEADLINE_S),
    "UPSTREAM_READ_TIMEOUT_S": "3",
    "UPSTREAM_OPEN_TIMEOUT_S": "4",
    "UPSTREAM_RETRIES": "0",
}
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
NO = b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
USAGE = '"usage":{"input_tokens":25,"output_tokens":1}'


def event(name: str, data: str) -> bytes:
    """Returns an event with its data unescaped."""
    return f'event: {name}\ndata: {{"type":"{name}",{data}}}\n\n'.encode()


START = event("message_start", f'"message":{{"id":"m","model":"m","content":[],{USAGE}}}')
START += event("content_block_start", '"index":0,"content_block":{"type":"text","text":""}')
STOP = event("message_delta", '"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}')
STOP += event("message_stop", '"x":1')
PING = event("ping", '"x":1')

Write = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def delta(text: str) -> bytes:
    """Returns a text delta with its text unescaped."""
    return event("content_block_delta", f'"index":0,"delta":{{"type":"text_delta","text":"{text}"}}')


def whole(body: bytes) -> Write:
    """Sends this and closes."""

    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        await writer.drain()
        writer.close()
        raise ConnectionError

    return write


def endless(first: bytes, then: bytes, *, every_s: float = 0.0) -> Write:
    """Sends the first part, then repeats the rest until the connection is closed."""

    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while not writer.is_closing():
            writer.write(then)
            await writer.drain()
            await asyncio.sleep(every_s)
        raise ConnectionError

    return write


HARM: dict[str, Write] = {
    "an error body without end": endless(NO, b"x" * 65536),
    "an error body that drips": endless(NO, b"x", every_s=0.1),
    "heads without end": endless(b"HTTP/1.1 200 OK\r\n", b"x-more: " + b"y" * 1000 + b"\r\n"),
    "a head that drips": endless(b"HTTP/1.1 200 OK\r\nx-slow: ", b"y", every_s=0.1),
    "continue without end": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.01),
    "a line without end": endless(OK + b"data: ", b"x" * 65536),
    "a line without end after the start": endless(OK + START + b"data: ", b"x" * 65536),
    "pings without end before the start": endless(OK, PING, every_s=0.05),
    "a start that drips": endless(OK + START[:40], b" ", every_s=0.1),
    "words before the start": whole(OK + delta("words") + START + STOP),
    "empty pieces without end": endless(OK + START, delta("") * 500),
    "words without end": endless(OK + START, delta("words and words ") * 200),
    "a trailer without end": endless(CHUNKED, b"x-more: " + b"y" * 1000 + b"\r\n"),
    "a frame of 15 MB in drops": endless(OK + START + b"data: ", b"x" * 1400, every_s=0.0),
    "content that is none": whole(OK + START.replace(b'"content":[]', b'"content":5') + delta("x") + STOP),
    "a message instead of a stream": whole(OK + b'{"id":"m","type":"message","content":[]}'),
    "words that drip": endless(OK + START, delta("w"), every_s=0.1),
    "halves of characters": whole(OK + START + delta("a\\ud83e") + delta("\\uddfe") + delta("\\ud83e") + STOP),
    "NUL in the id": whole(OK + START.replace(b'"id":"m"', b'"id":"m\\u0000"') + STOP),
    "half a character in the model": whole(OK + START.replace(b'"model":"m"', b'"model":"\\udc00"') + STOP),
    "NUL in the stop reason": whole(OK + START + delta("x") + STOP.replace(b"end_turn", b"\\u0000")),
    "half a character in the stop reason": whole(OK + START + delta("x") + STOP.replace(b"end_turn", b"\\udc00")),
    "a long request id": whole(OK.replace(b"connection", b"request-id: " + b"r" * 8000 + b"\r\nconnection") + START),
    "odd bytes in the request id": whole(OK.replace(b"connection", b"request-id: \xff\xfe\r\nconnection") + START),
    "counts beyond all prices": whole(OK + START.replace(b"25", b"9" * 30) + STOP),
}


@dataclass(frozen=True)
class Found:
    """The results of one kind of attack."""

    slowest_s: float
    told: Counter[str]
    rows: Counter[str]
    growth_mb: float


async def suffer(api: Api, http: httpx2.AsyncClient, books: Books) -> Found:
    """Sends concurrent requests of separate accounts."""
    accounts = [await books.account() for _ in range(AT_ONCE)]
    before_kb = api.resident_kb()
    took: list[float] = []

    async def ask(number: int) -> Answer:
        began_s = time.monotonic()
        answer = await FORMS[number % len(FORMS)].ask(http, accounts[number])
        took.append(time.monotonic() - began_s)
        return answer

    answers = await asyncio.gather(*(ask(number) for number in range(AT_ONCE)))
    growth_mb = (api.resident_kb() - before_kb) / 1024
    rows = [row for account in accounts for row in await books.settled(account, 1, within_s=20)]
    told = Counter("done" if answer.error is None else _named(answer.error) for answer in answers)
    booked = Counter(f"{row['outcome']}/{row['source']} {row['requests']}+{row['input_tokens']}" for row in rows)
    return Found(max(took), told, booked, growth_mb)


def _named(error: dict[str, Any]) -> str:
    return str(error.get("code") or error["error"]["type"])


async def _run(api: Api, provider: RawProvider, database: str) -> bool:
    books, is_harmed = Books(database), False
    try:
        async with client(api.url) as http:
            provider.write = whole(OK + START + delta("warm") + STOP)
            await suffer(api, http, books)
            for name, write in HARM.items():
                provider.write = write
                found = await suffer(api, http, books)
                print(
                    f"{name:36}{found.slowest_s:6.1f} s{found.growth_mb:7.1f} MB  {dict(found.told)} {dict(found.rows)}"
                )
                is_harmed |= found.slowest_s > LONGEST_S or found.growth_mb > MOST_GROWTH_MB
    finally:
        await books.close()
    return is_harmed


async def _attack() -> bool:
    with tempfile.TemporaryDirectory(prefix="naka-attack-") as folder:
        home = Path(folder)
        with Postgres(home / "postgres") as postgres, Valkey(home / "valkey") as valkey:
            await asyncio.to_thread(migrate, postgres.url)
            async with raw_provider(whole(OK)) as provider:
                settings = environment(postgres.url, valkey.url, provider.url, **SETTINGS)
                with running(Api(settings, home / "naka.log")) as api:
                    return await _run(api, provider, postgres.url)


def main() -> None:
    """Runs every kind of attack and prints a table."""
    raise SystemExit(1 if asyncio.run(_attack()) else 0)


if __name__ == "__main__":
    main()
