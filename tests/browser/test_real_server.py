"""The chat against the real server: signing in, reading, the limit; and the example client from another origin."""

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from core.figures import grouped
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.browser.conftest import Watch, axe
from tests.browser.stack import Stack
from tests.harness import LEDGER_FIELDS, Account, scripted

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

TOKENS_A_DAY = 5_000
ANSWER = "A toll post, **not lost** & “quoted” 😀 नाका:\n\n- it counts what passes\n- and loses no word"


@pytest.fixture(scope="module", autouse=True)
def page_url(stack: Stack) -> str:
    """The real server in the stub's place."""
    return stack.url


@pytest.fixture
def account(stack: Stack) -> Account:
    """A visitor who has TOKENS_A_DAY."""
    return stack.account(limits=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, TOKENS_A_DAY),)))


@pytest.mark.slow
def test_a_visitor_signs_in_asks_reads_and_reaches_the_limit(
    tab: "Page", watch: Watch, stack: Stack, account: Account
) -> None:
    ref = account.key_id.hex
    tab.add_init_script(
        "window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.blockedURI))"
    )
    tab.goto(stack.url)
    assert tab.url == f"{stack.url}/sign-in?next=%2F"
    tab.get_by_label("API key", exact=True).fill(account.key[:-1] + "~")
    tab.get_by_role("button", name="Sign in").click()
    tab.get_by_role("alert").get_by_text("This key was not accepted").wait_for()
    assert axe(tab) == []
    tab.get_by_label("API key", exact=True).fill(account.key)
    tab.get_by_role("button", name="Sign in").click()

    ask(tab, scripted("What is a naka?", ref=ref, text=ANSWER))
    (first,) = await_ends(tab, stack, ref, 1)
    assert tab.locator(".answer").inner_text() == (
        "A toll post, not lost & “quoted” 😀 नाका:\n\nit counts what passes\nand loses no word"
    )
    tab.locator(".meta", has_text=used_line(first, TOKENS_A_DAY - first)).wait_for()
    assert axe(tab) == []

    ask(tab, scripted("Go on.", ref=ref, output_tokens=TOKENS_A_DAY))
    _, second = await_ends(tab, stack, ref, 2)
    tab.locator(".meta.low", has_text=f"{used_line(second, 0)}. More {opens(stack, account)}").wait_for()
    assert [line for line in watch.console if "401" not in line] == []

    ask(tab, "And now?")
    alert = tab.get_by_role("alert")
    alert.get_by_text(f"You have reached your limit. You can send again {opens(stack, account)}.").wait_for()
    assert re.fullmatch(r"Ready in (\d+ h )?(\d+ min)?( ?\d+ s)?", tab.get_by_role("timer").text_content() or "")
    assert tab.get_by_role("button", name="Send").is_disabled()
    assert tab.get_by_label("Your message").input_value() == "And now?", "nothing has to be typed twice"
    assert tab.locator("article").count() == 2
    assert len(served(stack, ref)) == 2, "the refused message never reached the provider"

    assert [line for line in watch.console if not re.search("401|429", line)] == []
    assert tab.evaluate("violations") == []
    assert watch.hosts == {stack.url.removeprefix("http://")}
    assert not [url for url in watch.urls if account.key in url]
    assert tab.evaluate("document.cookie") == "", "no script sees the session"
    (cookie,) = tab.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")

    tab.get_by_role("button", name="Sign out").click()
    tab.get_by_role("heading", name="Sign in").wait_for()
    assert tab.context.cookies() == []
    assert tab.evaluate("[sessionStorage.length, localStorage.length]") == [0, 0], "nothing of the talk is left"


@pytest.mark.slow
def test_example_client_is_let_in_from_its_origin(
    tab: "Page", watch: Watch, client_origin: str, stack: Stack, account: Account
) -> None:
    tab.goto(f"{client_origin}/client.html")
    tab.get_by_label("Server").fill(stack.url)
    tab.get_by_label("API key").fill(account.key)

    client_asks(tab, scripted(text=ANSWER))
    tab.wait_for_function("(end) => document.querySelector('output').textContent === end", arg=ANSWER)
    stack.books(lambda books: books.settled(account, 1))
    client_asks(tab, scripted("Go on.", words=20, output_tokens=TOKENS_A_DAY))
    tab.get_by_role("status").get_by_text("the toll post counts").wait_for()
    stack.books(lambda books: books.settled(account, 2))  # its first words are there before it is counted
    assert [line for line in watch.console if "404" not in line] == [], "only an icon that is not there"

    client_asks(tab, "And now?")
    tab.get_by_role("status").get_by_text(
        f"[429 Too Many Requests: You've used today's {TOKENS_A_DAY:,} tokens. They reset at 00:00, in "
    ).wait_for()
    assert watch.hosts == {stack.url.removeprefix("http://"), client_origin.removeprefix("http://")}


@pytest.mark.slow
def test_example_of_a_websocket_asks_twice_on_one_connection(
    tab: "Page", watch: Watch, client_origin: str, stack: Stack, account: Account
) -> None:
    opened = list[str]()
    tab.on("websocket", lambda socket: opened.append(socket.url))
    tab.goto(f"{client_origin}/websocket.html")
    tab.get_by_label("Server").fill(stack.url)
    tab.get_by_label("API key").fill(account.key)
    for text in (ANSWER, "And once more."):
        client_asks(tab, scripted(text=text))
        tab.wait_for_function("(end) => document.querySelector('output').textContent === end", arg=text)
    stack.books(lambda books: books.settled(account, 2))
    assert opened == [f"{stack.url.replace('http', 'ws')}/chat"], "one connection, and no key in its URL"
    assert [line for line in watch.console if "404" not in line] == []

    tab.reload()
    tab.get_by_label("Server").fill(stack.url)
    tab.get_by_label("API key").fill("nk_live_wrong")
    client_asks(tab, "hello")
    tab.get_by_role("status").get_by_text("[401 Unauthorized: A valid API key is required.]").wait_for()


def test_a_websocket_of_another_origin_is_not_let_in(
    tab: "Page", client_origin: str, stack: Stack, account: Account
) -> None:
    tab.goto(f"{client_origin.replace('localhost', '127.0.0.1')}/websocket.html")
    tab.get_by_label("Server").fill(stack.url)
    tab.get_by_label("API key").fill(account.key)
    client_asks(tab, "hello")
    tab.get_by_role("status").get_by_text("[the server refused the connection]").wait_for()


@pytest.mark.slow
def test_another_origin_is_not_let_in(tab: "Page", client_origin: str, stack: Stack, account: Account) -> None:
    tab.goto(f"{client_origin.replace('localhost', '127.0.0.1')}/client.html")
    tab.get_by_label("Server").fill(stack.url)
    tab.get_by_label("API key").fill(account.key)
    client_asks(tab, "hello")
    tab.get_by_role("status").get_by_text("[Failed to fetch]").wait_for()


def ask(page: "Page", message: str) -> None:
    page.get_by_label("Your message").fill(message)
    page.get_by_role("button", name="Send").click()


def client_asks(page: "Page", message: str) -> None:
    page.get_by_label("Message").fill(message)
    page.get_by_role("button").click()


def await_ends(page: "Page", stack: Stack, ref: str, count: int) -> list[int]:
    """What the answers cost, once `count` of them have ended."""
    page.locator('article[data-state="ended"]').nth(count - 1).wait_for()
    return served(stack, ref)


def served(stack: Stack, ref: str) -> list[int]:
    """The tokens of each answer that the provider gave this visitor, as the provider counts them."""
    return [sum(row[name] for name in LEDGER_FIELDS) for row in stack.simulator.ledger(ref)]


def used_line(used: int, left: int) -> str:
    """What stands under an answer."""
    return f"This message used {grouped(used)} tokens; {grouped(left)} left today"


def opens(stack: Stack, account: Account) -> str:
    """When the day's window turns, as a reader in this machine's time zone says it."""
    with urlopen(Request(f"{stack.url}/v1/limits", headers=account.headers)) as answer:
        limits: dict[str, Any] = json.load(answer)
    (window,) = limits["windows"]
    at = datetime.fromisoformat(window["resets_at"]).astimezone()
    day = "" if at.date() == datetime.now().astimezone().date() else f"on {at:%A} {at.day} {at:%B} "
    return f"{day}at {at:%H:%M}"
