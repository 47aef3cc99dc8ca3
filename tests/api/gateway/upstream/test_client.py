"""The client of Anthropic: no environment variable of the SDK changes a request, and every read is bounded."""

import asyncio
import json
from pathlib import Path

import pytest

from api.gateway.stream_errors import UpstreamFault
from api.gateway.upstream import sdk_client as transport
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.prompts import ChatPrompt
from core.settings import Settings
from metering.journal.recorder import UsageRecorder
from tests.raw_provider import RawProvider, Request, raw_provider

MODEL = "claude-sonnet-4-6"
PROMPT = ChatPrompt(MODEL, "", "hello")
KEY = "the-one-key"
START = '{"message":{"id":"m","model":"m","usage":{"input_tokens":7}}}'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CREDENTIALS = {
    "version": "1.0",
    "base_url": "http://127.0.0.1:9",
    "authentication": {"type": "user_oauth", "client_id": "x"},
}
VARIABLES = {
    "ANTHROPIC_API_KEY": "another-key",
    "ANTHROPIC_AUTH_TOKEN": "a-token",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
    "ANTHROPIC_CUSTOM_HEADERS": "x-api-key: mine\nX-Smuggled: 1\nauthorization: Bearer mine\nanthropic-version: 1",
    "ANTHROPIC_WEBHOOK_SIGNING_KEY": "whsec",
    "ANTHROPIC_PROFILE": "default",
    "ANTHROPIC_IDENTITY_TOKEN": "identity",
    "ANTHROPIC_FEDERATION_RULE_ID": "fdrl_1",
    "ANTHROPIC_ORGANIZATION_ID": "org_1",
    "ANTHROPIC_SERVICE_ACCOUNT_ID": "svac_1",
    "ANTHROPIC_WORKSPACE_ID": "wrkspc_1",
    "ANTHROPIC_SCOPE": "all",
    "ANTHROPIC_OPEN_TELEMETRY": "true",
    "ANTHROPIC_OPEN_TELEMETRY_PROPAGATION": "true",
    "ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE": "content",
    "ANTHROPIC_LOG": "debug",
}


async def say(request: Request, writer: asyncio.StreamWriter) -> None:
    """Returns the start of an answer, or a count."""
    if request.counts:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n"
        writer.write(head + b'{"input_tokens":7}')
    else:
        writer.write(STREAM + f"event: message_start\ndata: {START}\n\n".encode())


def client_of(provider: RawProvider) -> Upstream:
    """Opens a client."""
    return Upstream(Settings.model_validate({"anthropic_base_url": provider.url, "anthropic_api_key": KEY}))


async def asked(provider: RawProvider) -> list[Request]:
    """Returns the provider's requests for one chat and one count."""
    provider.requests.clear()
    upstream, recorder = client_of(provider), UsageRecorder(100, 0)
    stream = await upstream.open(PROMPT, recorder)
    assert recorder.unanswered
    assert START.encode() in await stream.read()
    stream.close()
    assert await upstream.count_tokens(PROMPT) == 7
    await upstream.close()
    return provider.requests.copy()


async def test_no_variable_of_the_sdk_changes_what_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    async with raw_provider(say) as provider:
        plain = await asked(provider)
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "default.json").write_text(json.dumps(CREDENTIALS))
        monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
        for name, value in VARIABLES.items():
            monkeypatch.setenv(name, value)
        assert await asked(provider) == plain
    assert [request.headers["authorization"] for request in plain] == [f"Bearer {KEY}"] * 2
    assert not [request for request in plain if "x-api-key" in request.headers]


async def test_the_body_of_an_error_is_read_to_a_bound() -> None:
    written = asyncio.get_running_loop().create_future()

    async def flood(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\nconnection: keep-alive\r\n\r\n")
        sent = 0
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            written.set_result(sent)

    async with raw_provider(flood) as provider:
        upstream, recorder = client_of(provider), UsageRecorder(100, 0)
        async with asyncio.timeout(10):
            with pytest.raises(UpstreamFault) as fault:
                await upstream.open(PROMPT, recorder)
            sent = await written
        assert (fault.value.code, recorder.unanswered) == ("upstream_rejected", False)
        assert sent < 32 * 1024 * 1024, "the connection is closed, what is in the buffers of two sockets aside"
        await upstream.close()


@pytest.mark.parametrize("endless", [b" ", b""], ids=["endless", "stuck"])
async def test_a_count_is_read_to_a_bound(endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_WHOLE_BODY_S", 0.2)

    async def drag(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"input_tokens":')
        while endless:
            writer.write(endless * 65536)
            await writer.drain()
        await asyncio.sleep(60)

    async with raw_provider(drag) as provider:
        upstream = client_of(provider)
        async with asyncio.timeout(3):
            with pytest.raises(UpstreamFault):
                await upstream.count_tokens(PROMPT)
        await upstream.close()


async def test_a_status_is_believed_however_slow_its_body_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_WHOLE_BODY_S", 0.2)

    async def stick(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 529 No\r\nx-should-retry: false\r\ncontent-length: 999\r\n\r\n{"type":')
        await writer.drain()
        await asyncio.sleep(60)

    async with raw_provider(stick) as provider:
        upstream, recorder = client_of(provider), UsageRecorder(100, 0)
        async with asyncio.timeout(3):
            with pytest.raises(UpstreamFault) as fault:
                await upstream.open(PROMPT, recorder)
        assert (fault.value.code, recorder.unanswered) == ("upstream_overloaded", False)
        await upstream.close()


async def test_a_request_is_unanswered_from_its_body_on() -> None:
    async def hang_up(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.close()
        raise ConnectionError

    async with raw_provider(hang_up) as provider:
        upstream, recorder = client_of(provider), UsageRecorder(100, 0)
        with pytest.raises(UpstreamFault):
            await upstream.open(PROMPT, recorder)
        assert (recorder.unanswered, len(provider.requests)) == (True, 1)
    recorder = UsageRecorder(100, 0)
    with pytest.raises(UpstreamFault):  # nobody listens any more
        await upstream.open(PROMPT, recorder)
    assert not recorder.unanswered
    await upstream.close()


async def test_nothing_is_sent_again_once_nobody_waits() -> None:
    async def refuse(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 529 No\r\nretry-after-ms: 1\r\ncontent-length: 0\r\n\r\n")

    async with raw_provider(refuse) as provider:
        upstream = client_of(provider)
        for is_awaited, asks in ((False, 1), (True, 3)):
            provider.requests.clear()
            with pytest.raises(UpstreamFault):
                await upstream.open(PROMPT, UsageRecorder(100, 0), lambda answer=is_awaited: answer)  # type: ignore[misc]
            assert len(provider.requests) == asks
        await upstream.close()
