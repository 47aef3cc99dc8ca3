"""Traces: the spans of a chat as a collector receives them, without texts, keys or names."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from api.app import create_app
from api.observability import tracing
from core.settings import Settings, SettingsError
from sandbox.daemon import free_port
from tests.harness import SIMULATOR_KEY, Books, Simulator, chat

SECRET_WORDS = "the-words-of-this-message"
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@dataclass
class Collector:
    """An OTLP receiver."""

    url: str
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Any]:
        """Returns all spans received."""
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A listening collector."""
    made = Collector("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert (self.path, self.headers.get("content-encoding")) == ("/v1/traces", None)
            made.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """The provider."""
    simulator = Simulator()
    yield simulator
    simulator.stop()


@pytest.fixture
def traced(database_url: str, redis_url: str, simulator: Simulator) -> Callable[[str], Settings]:
    """Settings with a collector."""
    return lambda url: Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        anthropic_api_key=SIMULATOR_KEY,
        anthropic_base_url=simulator.url,
        otel_exporter_otlp_endpoint=url,
    )


async def _chat_once(settings: Settings) -> tuple[Any, Any]:
    """Chats, requests a page, and stops the application; returns the account and its row."""
    app, books = create_app(settings), Books(settings.database_url)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    parent = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://naka.test", headers=parent) as http,
    ):
        account = await books.account()
        assert (await chat(http, account, SECRET_WORDS)).done
        assert (await http.get(f"/v1/admin/tenants/{account.tenant_id}?q={SECRET_WORDS}")).status_code == 422
        (row,) = await books.settled(account, 1)
    await books.close()
    return account, row


def _attributes(span: Any) -> dict[str, Any]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


@pytest.mark.slow
async def test_a_chat_is_one_tree_of_spans_without_a_word_of_it(
    traced: Callable[[str], Settings], collector: Collector
) -> None:
    account, row = await _chat_once(traced(collector.url))

    spans = {span.name: span for span in collector.spans()}
    root = spans["POST /chat"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert _attributes(root) == {
        "http.request.method": "POST",
        "http.route": "/chat",
        "http.response.status_code": 200,
        "naka.request_id": str(row["id"]),
        "naka.tenant_id": str(account.tenant_id),
    }
    steps = [span for span in spans.values() if span.parent_span_id == root.span_id]
    in_order = [span.name for span in sorted(steps, key=lambda span: span.end_time_unix_nano)]
    assert in_order == ["authenticate", "open", "admit", "upstream", "settle"]
    assert all(root.start_time_unix_nano <= span.start_time_unix_nano for span in steps)
    assert all(span.end_time_unix_nano <= root.end_time_unix_nano for span in steps)
    assert [event.name for event in spans["upstream"].events] == ["first_token"]

    (other,) = (span for name, span in spans.items() if name.startswith("GET "))
    assert _attributes(other)["http.route"] == "/v1/admin/tenants/{tenant_id}", "the template, not the path"
    sent = b"".join(collector.bodies)
    for secret in (account.key, SECRET_WORDS, SIMULATOR_KEY):
        assert secret.encode() not in sent


@pytest.mark.slow
async def test_a_collector_that_is_away_harms_nothing(
    traced: Callable[[str], Settings], caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    await _chat_once(traced(f"http://127.0.0.1:{free_port()}"))
    assert time.monotonic() - started < 10, "a stop is bounded"
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_configured_but_not_installed_is_said(
    traced: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"naka\[otel\]"):
        tracing.build_tracing(traced("http://127.0.0.1:1"))
    assert tracing.build_tracing(traced("")) is None
