"""Clients that speak HTTP in their own way: slow readers, pipelines, HTTP/1.0, `Connection: close`, HEAD."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from tests.answers import parse_sse
from tests.harness import Api, Books, Simulator, scripted
from tests.journeys.callers import served
from tests.journeys.forms import CHAT, FORMS, SOCKET, STREAMED, Form, every_form
from tests.raw_connection import RawConnection, Reply
from tests.raw_provider import RawProvider, Request, raw_provider

PIECE = "x" * 10_000
PIECES = 2_000
GROWTH_MB = 12
SILENT_S = 3
START: dict[str, object] = {
    "message": {"id": "m", "model": "m", "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}
}
BLOCK: dict[str, object] = {"index": 0, "content_block": {"type": "text", "text": ""}}
FINAL = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}


def event(name: str, data: dict[str, object]) -> bytes:
    """An event of the provider."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


class Fast:
    """A provider that writes an answer of 20 MB as fast as it is read; `sent` pieces so far."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answers."""
        del request
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(event("message_start", START) + event("content_block_start", BLOCK))
        for _ in range(PIECES):
            delta: dict[str, object] = {"index": 0, "delta": {"type": "text_delta", "text": PIECE}}
            writer.write(event("content_block_delta", delta))
            await writer.drain()
            self.sent += 1
        writer.write(event("content_block_stop", {"index": 0}) + event("message_delta", FINAL))
        writer.write(event("message_stop", {}))
        await writer.drain()
        writer.close()
        raise ConnectionError


@pytest.fixture
async def fast() -> AsyncIterator[tuple[Fast, RawProvider]]:
    """That provider."""
    write = Fast()
    async with raw_provider(write) as made:
        yield write, made


async def stopped(write: Fast) -> None:
    """Returns once the provider cannot write; asserts that this was long before its end."""
    sent = -1
    while sent != write.sent or not sent:
        sent = write.sent
        await asyncio.sleep(SILENT_S)
    assert sent < PIECES * 0.9


@pytest.mark.slow
@pytest.mark.parametrize("form", [CHAT, STREAMED], ids=lambda form: form.name)
async def test_a_client_that_does_not_read_stops_the_provider_and_then_gets_every_byte(
    start_api: Callable[..., Api], books: Books, fast: tuple[Fast, RawProvider], form: Form
) -> None:
    """For longer than the provider may be silent: it is us who do not read."""
    write, provider = fast
    api = await asyncio.to_thread(start_api, ANTHROPIC_BASE_URL=provider.url, UPSTREAM_READ_TIMEOUT_S="1")
    account = await books.account()
    before_kb = api.resident_kb()
    caller = await RawConnection.open(api.port, form.request(account, "hello"), receive_bytes=4096)

    await stopped(write)

    assert api.resident_kb() - before_kb < GROWTH_MB * 1024
    async with asyncio.timeout(60):
        reply = await caller.reply()
    events = parse_sse(reply.body)
    if form.is_chat:
        assert events == [("message", PIECE)] * PIECES + [("done", "")]
    else:
        texts = [json.loads(data)["delta"]["text"] for name, data in events if name == "content_block_delta"]
        assert texts == [PIECE] * PIECES
        assert events[-1][0] == "message_stop"
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"], row["output_tokens"]) == ("completed", "final", 9)
    await caller.close()


@pytest.mark.slow
async def test_a_client_that_never_reads_is_left_and_billed(
    start_api: Callable[..., Api], books: Books, fast: tuple[Fast, RawProvider]
) -> None:
    _, provider = fast
    api = await asyncio.to_thread(start_api, ANTHROPIC_BASE_URL=provider.url, CLIENT_STALL_TIMEOUT_S="1")
    account = await books.account()
    caller = await RawConnection.open(api.port, STREAMED.request(account, "hello"), receive_bytes=4096)
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["input_tokens"]) == ("client_gone", 5)
    assert b"message_stop" not in await caller.rest()
    await caller.close()


@pytest.mark.slow
async def test_a_websocket_that_does_not_read_stops_the_provider_and_is_left_and_billed(
    start_api: Callable[..., Api], books: Books, fast: tuple[Fast, RawProvider]
) -> None:
    write, provider = fast
    api = await asyncio.to_thread(start_api, ANTHROPIC_BASE_URL=provider.url, CLIENT_STALL_TIMEOUT_S="10")
    account = await books.account()
    before_kb = api.resident_kb()
    caller = await RawConnection.open(api.port, SOCKET.handshake(account), receive_bytes=4096)
    await caller.hears("\r\n\r\n")
    caller.send(SOCKET.request(account, "hello"))
    await stopped(write)
    assert api.resident_kb() - before_kb < GROWTH_MB * 1024
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["input_tokens"]) == ("client_gone", 5)
    assert write.sent < PIECES * 0.9
    await caller.close()


def assert_complete(reply: Reply, form: Form, text: str) -> None:
    """Asserts a complete answer of this text."""
    assert reply.status == 200
    if form.is_chat:
        assert parse_sse(reply.body) == [("message", text), ("done", "")]
    elif form.streams:
        events = parse_sse(reply.body)
        assert [json.loads(data)["delta"]["text"] for name, data in events if name == "content_block_delta"] == [text]
        assert events[-1][0] == "message_stop"
    else:
        assert [block["text"] for block in reply.json()["content"]] == [text]


async def test_a_pipeline_is_answered_in_order(api: Api, books: Books) -> None:
    account = await books.account()
    forms = (*FORMS, *reversed(FORMS))
    messages = [scripted(pieces=[f"answer {number}"], piece_delay_ms=30) for number in range(len(forms))]
    requests = [form.request(account, message) for form, message in zip(forms, messages, strict=True)]

    caller = await RawConnection.open(api.port, b"".join(requests))

    for number, form in enumerate(forms):
        assert_complete(await caller.reply(), form, f"answer {number}")
    assert not caller.is_over
    assert {row["outcome"] for row in await books.settled(account, len(forms))} == {"completed"}
    await caller.close()


@pytest.mark.slow
@every_form
async def test_a_pipelining_client_that_leaves_is_noticed(
    api: Api, books: Books, simulator: Simulator, form: Form
) -> None:
    account = await books.account()
    ref = account.key_id.hex
    caller = await RawConnection.open(api.port, form.request(account, scripted(ref=ref, pieces=["a"], stall_after=1)))
    await served(simulator, ref, ended=False)
    await asyncio.sleep(0.3)
    caller.send(form.request(account, scripted(ref=f"{ref}-2")))
    await asyncio.sleep(0.1)
    await caller.close()

    assert (await served(simulator, ref, ended=True))["state"] == "client_gone"
    (row,) = await books.settled(account, 1)
    assert row["outcome"] == "client_gone"


@every_form
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_connection_for_one_request(api: Api, books: Books, form: Form, version: str) -> None:
    account = await books.account()
    request = form.request(account, scripted(pieces=["only"]), connection="close")
    caller = await RawConnection.open(api.port, request.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1))

    reply = await caller.reply()

    assert_complete(reply, form, "only")
    assert reply.is_last
    assert await caller.rest() == b""
    await caller.close()


@every_form
async def test_head_is_no_request_for_an_answer(api: Api, books: Books, form: Form) -> None:
    account = await books.account()
    request = form.request(account, "hello").split(b"\r\n\r\n")[0].replace(b"POST", b"HEAD", 1)
    caller = await RawConnection.open(api.port, request.rpartition(b"\r\n")[0] + b"\r\n\r\n")
    await caller.hears("HTTP/1.1 405 ")
    await caller.hears("\r\n\r\n")
    assert await books.requests(account) == []
    await caller.close()
