"""A provider that misbehaves beyond the simulator: answers that are cut, garbled or empty.

The client gets a documented error, and the request is settled. When token counts fail as well, output is estimated.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from uuid import uuid4

import httpx2
import pytest

from metering.quota.limits import LimitSet
from sandbox.daemon import free_port
from tests.harness import TOKEN_FIELDS, Api, Books, client
from tests.journeys.forms import CHAT, FORMS, Form, every_form

LIMITS = LimitSet((), concurrency=1)
OK = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_strange\r\n"
STREAM = f"{OK}connection: close\r\n\r\n"
LONGER = f"{OK}content-length: 99999\r\n\r\n"  # than what is sent: the connection is cut
USAGE = '{"input_tokens": 25, "output_tokens": 1}'


def event(name: str, data: str) -> str:
    """An event, which names its type as the provider's do."""
    return f'event: {name}\ndata: {{"type": "{name}", {data}}}\n\n'


BLOCK = event("content_block_start", '"index": 0, "content_block": {"type": "text", "text": ""}')
START = event("message_start", f'"message": {{"id": "msg_1", "model": "m", "content": [], "usage": {USAGE}}}') + BLOCK
TEXT = event("content_block_delta", '"index": 0, "delta": {"type": "text_delta", "text": "ten chars!"}')
FINAL = event("message_delta", '"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 90}')
UNSAID = event("message_delta", '"delta": {"stop_reason": "end_turn"}')
STOP = 'event: message_stop\ndata: {"type": "message_stop"}\n\n'
DEEP = f'event: content_block_delta\ndata: {{"deep": {"[" * 9999}\n\n'
MESSAGE = f'{{"id": "m", "type": "message", "content": [{{"type": "text", "text": "hi"}}], "usage": {USAGE}}}'
CHUNKED = f"{OK}transfer-encoding: chunked\r\n\r\n"
NO_BODY = "content-length: 0\r\nconnection: close\r\n\r\n"

BEFORE_THE_HEAD = [
    # what the provider says, then what our client gets, and how often the provider is asked; a status is a refusal, and
    # whatever else is no answer leaves the prompt estimated, by the bound that was held: it does not count either
    ("", 502, "upstream_unreachable", 1),
    ("HTTP/1.1 200 OK\r\ncontent-ty", 502, "upstream_unreachable", 1),
    ("SSH-2.0-OpenSSH_9.9\r\n\r\n", 502, "upstream_unreachable", 1),
    (STREAM, 502, "upstream_broken", 1),
    (LONGER, 502, "upstream_broken", 1),
    (f"{LONGER}{START[:40]}", 502, "upstream_broken", 1),
    (f"{STREAM}<html>welcome to the hotel</html>\n\n", 502, "upstream_broken", 1),
    (f"{STREAM}event: message_start\ndata: {{\n\n", 502, "upstream_broken", 1),
    (f"{STREAM}{DEEP}", 502, "upstream_broken", 1),
    (f"{STREAM}data: {'x' * (17 << 20)}", 502, "upstream_broken", 1),
    (
        f"{OK.replace('text/event-stream', 'application/json')}connection: close\r\n\r\n{MESSAGE}",
        502,
        "upstream_broken",
        1,
    ),
    (f"{OK}content-encoding: gzip\r\nconnection: close\r\n\r\n\x1f\x08{START}", 502, "upstream_broken", 1),
    (f"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n{STREAM}", 502, "upstream_broken", 1),
    (f"{CHUNKED}zz\r\n", 502, "upstream_broken", 1),
    (f"{STREAM}{TEXT}", 502, "upstream_broken", 1),
    (f"{STREAM}{STOP}", 502, "upstream_broken", 1),
    (f"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\n{NO_BODY}", 502, "upstream_rejected", 1),
    (f"HTTP/1.1 401 No\r\nx-should-retry: true\r\nretry-after-ms: 1\r\n{NO_BODY}", 502, "upstream_credentials", 3),
    (f"HTTP/1.1 529 No\r\nx-should-retry: false\r\n{NO_BODY}", 503, "upstream_overloaded", 1),
    (f"HTTP/1.1 429 No\r\nretry-after: nan\r\n{NO_BODY}", 503, "upstream_rate_limited", 1),
    (f"HTTP/1.1 429 No\r\nretry-after: inf\r\n{NO_BODY}", 503, "upstream_rate_limited", 1),
    (f"HTTP/1.1 429 No\r\nretry-after: -7\r\n{NO_BODY}", 503, "upstream_rate_limited", 1),
    (f"HTTP/1.1 429 No\r\nretry-after: Mon, 23 Nov 2026 00:00:00 GMT\r\n{NO_BODY}", 503, "upstream_rate_limited", 1),
]
AFTER_THE_HEAD = [
    # what the provider says, what our client reads before the error, and the output and its source in the books
    (f"{LONGER}{START}", "", 0, "counted"),
    (f"{LONGER}{START}{TEXT}{TEXT[:60]}", "ten chars!", 3, "estimated"),
    (f"{STREAM}{START}{TEXT}{DEEP}", "ten chars!", 3, "estimated"),
    (f"{STREAM}{START}{TEXT}data: {'x' * (17 << 20)}", "ten chars!", 3, "estimated"),
    (f"{CHUNKED}{len(START):x}\r\n{START}\r\n{len(TEXT):x}\r\n{TEXT}\r\nzz\r\n", "ten chars!", 3, "estimated"),
    (f"{CHUNKED}{len(START + TEXT):x}\r\n{START}{TEXT}\r\n0\r\n\r\n", "ten chars!", 3, "estimated"),
    (f"{LONGER}{START}{TEXT}{FINAL}", "ten chars!", 90, "final"),
    (f"{STREAM}{START}{TEXT}{FINAL}", "ten chars!", 90, "final"),
]


class Provider:
    """Sends the same bytes to every client, then closes; may delay first, or linger until the client closes."""

    def __init__(self) -> None:
        self.port = free_port()
        self.says = ""
        self.think_s = 0.0
        self.lingers = False
        self.asked = 0
        self.talks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self.talks.add(talk)
        talk.add_done_callback(self.talks.discard)
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(length.partition(b":")[2]))
        self.asked += head.startswith(b"POST /v1/messages ")
        await asyncio.sleep(self.think_s)
        writer.write(self.says.encode())
        with suppress(ConnectionError):
            if self.lingers:
                await reader.read()
            writer.close()
            await writer.wait_closed()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    server = await asyncio.start_server(made, "127.0.0.1", made.port)
    yield made
    if made.talks:  # nobody keeps a connection that was not read to its end
        _, kept = await asyncio.wait(made.talks, timeout=10)
        assert not kept
    server.close()
    await server.wait_closed()


@pytest.fixture
async def strange(start_api: Callable[..., Api], provider: Provider) -> AsyncIterator[httpx2.AsyncClient]:
    """Opens a client of an API with that provider."""
    api = await asyncio.to_thread(start_api, ANTHROPIC_BASE_URL=f"http://127.0.0.1:{provider.port}")
    async with client(api.url) as http:
        yield http
    assert "Traceback" not in api.log.read_text()


@pytest.mark.slow
@every_form
async def test_before_the_head(strange: httpx2.AsyncClient, provider: Provider, books: Books, form: Form) -> None:
    for says, status, code, asks in BEFORE_THE_HEAD:
        account = await books.account(limits=LIMITS)
        provider.says, provider.asked = says, 0

        answer = await form.ask(strange, account, uuid4().hex)

        form.assert_told(answer, status, code, started=False)
        assert provider.asked == asks, says[:200]
        assert answer.headers.get("retry-after") in ({"5"} if status == 503 else {None}), says
        answered_no = not says.startswith(OK) and re.match(r"HTTP/1.1 [345]", says)
        (row,) = await books.settled(account, 1)
        assert (row["outcome"], row["source"]) == ("upstream_refused", "final" if answered_no else "estimated"), says
        prompt = 0 if answered_no else row["held_prompt_tokens"]
        assert [row[name] for name in ("requests", *TOKEN_FIELDS)] == [1, prompt, 0, 0, 0, 0], says
        assert (await strange.get("/v1/limits", headers=account.headers)).json()["concurrency"]["active"] == 0


@pytest.mark.slow
@every_form
async def test_after_the_head(strange: httpx2.AsyncClient, provider: Provider, books: Books, form: Form) -> None:
    for says, text, output, source in AFTER_THE_HEAD:
        account = await books.account(limits=LIMITS)
        provider.says, provider.asked = says, 0

        answer = await form.ask(strange, account, uuid4().hex)

        form.assert_told(answer, 502, "upstream_broken", started=True)
        assert (answer.text, provider.asked) == (text if form.streams else "", 1), says[:200]
        (row,) = await books.settled(account, 1)
        assert (row["outcome"], row["source"]) == ("upstream_broke", source), says
        assert (row["requests"], row["input_tokens"], row["output_tokens"]) == (1, 25, output), says
        assert row["upstream_request_id"] == "req_strange"


@pytest.mark.slow
async def test_an_end_without_usage_leaves_the_output_to_be_measured(
    strange: httpx2.AsyncClient, provider: Provider, books: Books
) -> None:
    ends = (f"{STREAM}{START}{TEXT}{UNSAID}{STOP}", f"{STREAM}{START}{TEXT}{STOP}")
    for form, says in itertools.product(FORMS, ends):
        account = await books.account(limits=LIMITS)
        provider.says = says

        answer = await form.ask(strange, account, "hello")
        assert (answer.status, answer.text, answer.error) == (200, "ten chars!", None)

        (row,) = await books.requests(account)
        assert (row["state"], row["outcome"], row["source"]) == ("settled", "completed", "estimated")
        assert (row["input_tokens"], row["output_tokens"]) == (25, 3)


async def test_an_upstream_that_lingers_after_its_end_holds_nobody_up(
    strange: httpx2.AsyncClient, provider: Provider, books: Books
) -> None:
    account = await books.account(limits=LIMITS)
    provider.says, provider.lingers = f"{LONGER}{START}{TEXT}{FINAL}{STOP}", True

    async with asyncio.timeout(20):
        for form in FORMS * 2:
            answer = await form.ask(strange, account, "hello")
            assert (answer.text, answer.done, answer.error) == ("ten chars!", True, None)

    rows = await books.requests(account)
    assert [(row["outcome"], row["source"], row["output_tokens"]) for row in rows] == [("completed", "final", 90)] * 6


@pytest.mark.slow
async def test_a_deadline_while_the_upstream_lingers_changes_nothing(
    start_api: Callable[..., Api], provider: Provider, books: Books
) -> None:
    account = await books.account(limits=LIMITS)
    provider.says, provider.think_s, provider.lingers = f"{LONGER}{START}{TEXT}{FINAL}{STOP}", 1.75, True
    url = f"http://127.0.0.1:{provider.port}"
    api = await asyncio.to_thread(start_api, ANTHROPIC_BASE_URL=url, REQUEST_DEADLINE_S="2")

    async with client(api.url) as http:
        answer = await CHAT.ask(http, account, "hello")
        await asyncio.sleep(1)

    if answer.done:  # else this machine was too slow, and the deadline came first
        assert "request_failed" not in api.log.read_text()
    (row,) = await books.settled(account, 1)
    assert row["outcome"] == ("completed" if answer.done else "deadline")
