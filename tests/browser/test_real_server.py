"""The pages against the real server: `naka serve`, Postgres, Valkey and the provider's simulator.

Playwright's sync API holds the event loop of this thread, so accounts are made on another one, and the servers,
whose making needs a loop as well, come up before the browser and go down after it (they are `autouse`).
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from metering.limits import Limit, LimitSet, Meter
from metering.windows import WindowKind
from tests import servers
from tests.browser.conftest import Watch
from tests.harness import LEDGER_FIELDS, Account, Api, Books, Simulator, environment, running, scripted

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

TOKENS_A_DAY = 5_000
ANSWER = "  A toll post, <b>not bold</b> & “quoted” 😀 नाका:\n\nit counts what passes;\n: and loses\n\tno word. "


@pytest.fixture(scope="module", autouse=True)
def simulator() -> Iterator[Simulator]:
    """The provider."""
    simulator = Simulator()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module", autouse=True)
def pages_database(shared_servers: servers.Servers, database_template: str, worker: str) -> Iterator[str]:
    """A migrated database for the stories of this file."""
    name = f"naka_pages_{worker}"
    yield servers.create_database(shared_servers.postgres, name, template=database_template)
    servers.drop_database(shared_servers.postgres, name)


@pytest.fixture(scope="module", autouse=True)
def page_url(
    pages_database: str, redis_url: str, simulator: Simulator, client_origin: str, run_folder: Path, worker: str
) -> Iterator[str]:
    """The real server in the stub's place; it lets the example client's origin in."""
    settings = environment(pages_database, redis_url, simulator.url, CORS_ORIGINS=client_origin)
    with running(Api(settings, run_folder / f"api-pages-{worker}.log")) as api:
        yield api.url


@pytest.fixture
def account(pages_database: str) -> Account:
    """A visitor who has TOKENS_A_DAY."""

    async def make() -> Account:
        books = Books(pages_database)
        try:
            return await books.account(limits=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, TOKENS_A_DAY),)))
        finally:
            await books.close()

    with ThreadPoolExecutor(1) as other_thread:
        return other_thread.submit(lambda: asyncio.run(make())).result()


@pytest.fixture
def served(simulator: Simulator, account: Account) -> Callable[[], list[int]]:
    """The tokens of each answer that the provider gave this visitor, as the provider counts them."""
    return lambda: [sum(row[name] for name in LEDGER_FIELDS) for row in simulator.ledger(account.key_id.hex)]


def test_a_visitor_asks_reads_and_reaches_the_limit(
    tab: "Page", watch: Watch, page_url: str, account: Account, served: Callable[[], list[int]]
) -> None:
    ref = account.key_id.hex
    tab.add_init_script(
        "window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.blockedURI))"
    )
    tab.goto(f"{page_url}/")
    tab.get_by_label("API key", exact=True).fill(account.key)

    ask(tab, scripted("What is a naka?", ref=ref, text=ANSWER))
    (first,) = await_ends(tab, served, 1)
    assert tab.locator(".answer").text_content() == ANSWER
    tab.locator(".meta", has_text=used_line(first, TOKENS_A_DAY - first)).wait_for()

    ask(tab, scripted("Go on.", ref=ref, output_tokens=TOKENS_A_DAY))
    _, second = await_ends(tab, served, 2)
    tab.locator(".meta.low", has_text=f"{used_line(second, 0)}. More {opens(page_url, account)}").wait_for()
    assert watch.console == []

    ask(tab, "And now?")
    alert = tab.get_by_role("alert")
    alert.get_by_text(f"You have reached your limit. You can send again {opens(page_url, account)}.").wait_for()
    assert re.fullmatch(r"Ready in (\d+ h )?(\d+ min)?( ?\d+ s)?", tab.get_by_role("timer").text_content() or "")
    assert tab.get_by_role("button", name="Send").is_disabled()
    assert tab.get_by_label("Your message").input_value() == "And now?", "nothing has to be typed twice"
    assert tab.locator("article").count() == 2
    assert len(served()) == 2, "the refused message never reached the provider"

    assert [line for line in watch.console if "429" not in line] == []
    assert tab.evaluate("violations") == []
    assert watch.hosts == {page_url.removeprefix("http://")}
    assert not [url for url in watch.urls if account.key in url]


def test_example_client_is_let_in_from_its_origin(
    tab: "Page", watch: Watch, client_origin: str, page_url: str, account: Account
) -> None:
    tab.goto(f"{client_origin}/client.html")
    tab.get_by_label("Server").fill(page_url)
    tab.get_by_label("API key").fill(account.key)

    client_asks(tab, scripted(text=ANSWER))
    tab.wait_for_function("(end) => document.querySelector('output').textContent === end", arg=ANSWER)
    client_asks(tab, scripted("Go on.", words=20, output_tokens=TOKENS_A_DAY))
    tab.get_by_role("status").get_by_text("the toll post counts").wait_for()
    assert [line for line in watch.console if "404" not in line] == [], "only an icon that is not there"

    client_asks(tab, "And now?")
    tab.get_by_role("status").get_by_text(
        f"[429 Too Many Requests: this user's limit of {TOKENS_A_DAY} tokens per day is used up]"
    ).wait_for()
    assert watch.hosts == {page_url.removeprefix("http://"), client_origin.removeprefix("http://")}


def test_another_origin_is_not_let_in(tab: "Page", client_origin: str, page_url: str, account: Account) -> None:
    tab.goto(f"{client_origin.replace('localhost', '127.0.0.1')}/client.html")
    tab.get_by_label("Server").fill(page_url)
    tab.get_by_label("API key").fill(account.key)
    client_asks(tab, "hello")
    tab.get_by_role("status").get_by_text("[Failed to fetch]").wait_for()


def ask(page: "Page", message: str) -> None:
    page.get_by_label("Your message").fill(message)
    page.get_by_role("button", name="Send").click()


def client_asks(page: "Page", message: str) -> None:
    page.get_by_label("Message").fill(message)
    page.get_by_role("button").click()


def await_ends(page: "Page", served: Callable[[], list[int]], count: int) -> list[int]:
    """What the answers cost, once `count` of them have ended."""
    page.locator('article[data-state="ended"]').nth(count - 1).wait_for()
    return served()


def used_line(used: int, left: int) -> str:
    """What stands under an answer."""
    return f"This message used {used:,} tokens; {left:,} left today"


def opens(page_url: str, account: Account) -> str:
    """When the day's window turns, as a reader in this machine's time zone says it."""
    with urlopen(Request(f"{page_url}/v1/limits", headers=account.headers)) as answer:
        limits: dict[str, Any] = json.load(answer)
    (window,) = limits["windows"]
    at = datetime.fromisoformat(window["resets_at"]).astimezone()
    day = "" if at.date() == datetime.now().astimezone().date() else f"on {at:%A} {at.day} {at:%B} "
    return f"{day}at {at:%H:%M}"
