"""Chromium, its pages, and a record of their errors and requests.

`page_url` is the one place that says which server the stories run against: here the stub, run_in_thread the real one.
Needs Chromium (`CHROMIUM`, else found on the path) and the `playwright` package; without them the stories are
skipped with the reason, or fail when `REQUIRE_BROWSER=1`. The browser lives as long as one test module: Playwright's
sync API keeps an event loop running, which pytest-asyncio would trip over in the modules after it.
"""

import functools
import http.server
import importlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import pytest

from tests import servers
from tests.browser.stack import Stack, running_stack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

ROOT = Path(__file__).parents[2]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
PATIENCE_MS = 20_000  # a loaded machine is slow, which is no finding


@pytest.fixture(scope="session")
def client_origin() -> Iterator[str]:
    """A static server for `examples/` on another origin, which the API must allow (CORS)."""
    handler = functools.partial(QuietFiles, directory=ROOT / "examples")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    """A file server without an access log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def page_url(client_origin: str) -> Iterator[str]:
    """The URL of the server under test, without a trailing slash."""
    stub = [sys.executable, "-m", "tests.browser.stub", client_origin]
    with subprocess.Popen(stub, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def chat_key() -> str:
    """A key that `page_url` accepts."""
    return "nk_test_stub_key"


@pytest.fixture(scope="session")
def stack(
    shared_servers: servers.Servers,
    database_template: str,
    redis_url: str,
    run_folder: Path,
    worker: str,
    client_origin: str,
) -> Iterator[Stack]:
    """The real stack, which allows the example client's origin."""
    with running_stack(
        shared_servers, database_template, redis_url, run_folder / f"stack-{worker}", client_origin
    ) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    try:
        playwright_api = importlib.import_module("playwright.sync_api")
    except ImportError:
        missing("the playwright package is not installed")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        missing("no chromium on the path, and CHROMIUM does not name one")
    with playwright_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


def missing(reason: str) -> NoReturn:
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


@dataclass
class Watch:
    """Console messages and requests of a page."""

    console: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    urls: list[str] = field(default_factory=list)

    def request(self, request: "Request") -> None:
        """Records a request."""
        self.urls.append(request.url)
        self.hosts.add(urlsplit(request.url).netloc)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def tab(browser: "Browser", watch: Watch) -> "Iterator[Page]":
    """An empty tab of a fresh browser context. Console errors, page errors and requests are recorded in `watch`."""
    context = browser.new_context(viewport={"width": 1100, "height": 760}, locale="en-GB")
    context.set_default_timeout(PATIENCE_MS)
    tab = context.new_page()
    tab.on("console", lambda line: watch.console.append(line.text) if line.type in {"error", "warning"} else None)
    tab.on("pageerror", lambda error: watch.console.append(str(error)))
    tab.on("request", watch.request)
    yield tab
    context.close()


@pytest.fixture
def chat(tab: "Page", page_url: str) -> "Page":
    """The chat page, signed in."""
    tab.goto(page_url)
    return tab


def axe(page: "Page") -> list[str]:
    """Returns axe-core's serious findings on the page, one per line."""
    engine = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    found = engine.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['target']} {node.get('failureSummary', '')}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"][:3]
    ]
