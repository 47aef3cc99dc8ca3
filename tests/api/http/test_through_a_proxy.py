"""Requests to Anthropic through HTTP and HTTPS proxies, and the errors of a proxy that refuses."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from api.gateway.stream_errors import UpstreamFault
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.prompts import ChatPrompt
from billing.razorpay.client import Razorpay
from billing.razorpay.errors import RazorpayError
from core.settings import Settings
from metering.journal.recorder import UsageRecorder
from tests.harness import SIMULATOR_KEY, Simulator

PROMPT = ChatPrompt("claude-sonnet-4-6", "", "hello")


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    made = Simulator()
    yield made
    made.stop()


@asynccontextmanager
async def proxy(target: str, refuses: str = "") -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that sends plain requests to `target`; yields its URL and the first lines it received."""
    asked: list[str] = []
    handlers: set[asyncio.Task[None] | None] = set()
    there = urlsplit(target)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n", 1)[0].decode())
        if refuses:
            writer.write(f"HTTP/1.1 {refuses}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        else:
            back, forth = await asyncio.open_connection(there.hostname, there.port)
            method, url, version = head.split(b"\r\n", 1)[0].split(b" ")
            path = urlsplit(url.decode()).path.encode()
            forth.write(b" ".join((method, path, version)) + b"\r\n" + head.split(b"\r\n", 1)[1])
            await asyncio.gather(_copy(reader, forth), _copy(back, writer))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        await asyncio.gather(*(task for task in handlers if task is not None))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def upstream(base_url: str, **proxies: Any) -> AsyncIterator[Upstream]:
    made = Upstream(
        Settings(
            _env_file=None, anthropic_api_key=SIMULATOR_KEY, anthropic_base_url=base_url, upstream_retries=0, **proxies
        )
    )
    try:
        yield made
    finally:
        await made.close()


async def test_a_stream_and_a_count_go_through_it(simulator: Simulator) -> None:
    async with proxy(simulator.url) as (url, asked), upstream("http://anthropic.test", http_proxy=url) as through:
        stream = await through.open(PROMPT, UsageRecorder(20, deadline_ms=2**53))
        read = b""
        while chunk := await stream.read():
            read += chunk
        stream.close()
        assert b"message_stop" in read
        assert await through.count_tokens(PROMPT) > 0
    assert asked[0] == "POST http://anthropic.test/v1/messages HTTP/1.1"


async def test_this_machine_and_what_no_proxy_names_are_reached_directly(simulator: Simulator) -> None:
    async with proxy(simulator.url) as (url, asked):
        for no_proxy in ("", "127.0.0.1"):
            async with upstream(simulator.url, http_proxy=url, https_proxy=url, no_proxy=no_proxy) as direct:
                assert await direct.count_tokens(PROMPT) > 0
    assert asked == []


async def test_a_tunnel_that_is_refused_carried_nothing(simulator: Simulator) -> None:
    async with (
        proxy(simulator.url, refuses="407 Proxy Authentication Required") as (url, asked),
        upstream("https://api.anthropic.com", https_proxy=url) as through,
    ):
        with pytest.raises(UpstreamFault) as refused:
            await through.open(PROMPT, UsageRecorder(20, deadline_ms=2**53))
    assert asked == ["CONNECT api.anthropic.com:443 HTTP/1.1"]
    assert (refused.value.code, refused.value.sent) == ("upstream_unreachable", False)


async def test_razorpay_is_asked_through_it(monkeypatch: pytest.MonkeyPatch, simulator: Simulator) -> None:
    async with proxy(simulator.url, refuses="403 Forbidden") as (url, asked):
        monkeypatch.setenv("HTTPS_PROXY", url)
        razorpay = Razorpay(key_id="k", key_secret=SecretStr("s"), base_url="https://api.razorpay.com")
        with pytest.raises(RazorpayError):
            await razorpay.create_plan(name="x", amount_paise=100, notes={})
        razorpay.close()
    assert [line.rpartition(" ")[0] for line in asked] == ["CONNECT api.razorpay.com:443"]
