"""The chat page and the example client, used as a person uses them, in a real browser.

What the stub can be asked for is listed in `stub.py`. A refused request (401, 429) is logged to the console by the
browser itself; that line alone is allowed.
"""

import json
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.browser.conftest import PATIENCE_MS, Watch

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

ANSWER = (
    "A toll post stands at the gate.\n\n"
    "It counts what passes, stops what may not, and sends the bill at the end of the month."
)
NOON = datetime(2026, 11, 23, 12)  # noqa: DTZ001 - the browser's own, wherever it is
HARD_TEXT = "  two blanks\n\n<b>not bold</b> & “quotes” 😀 नाका\n: no comment\ndata: no field\n\ttab, end"
AT_END = "thread.scrollTop > 0 && thread.scrollHeight - thread.scrollTop - thread.clientHeight < 48"
STATES = """() => {
  window.states = [];
  const note = () => {
    const state = document.querySelector("article")?.dataset.state;
    if (state && state !== states.at(-1)) states.push(state);
  };
  new MutationObserver(note).observe(document.body, { attributes: true, childList: true, subtree: true });
}"""
"""Notes what the answer goes through: a look from here may come when it is over."""


def ask(page: "Page", message: str) -> None:
    page.get_by_label("Your message").fill(message)
    page.get_by_role("button", name="Send").click()


def wait_for_end(page: "Page") -> None:
    page.locator('article[data-state="ended"]').last.wait_for()


def wait_until(page: "Page", holds: Callable[[], object]) -> None:
    """Polls from here: the page's policy lets nothing poll in it that is made of text."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        page.wait_for_timeout(20)


@pytest.mark.slow
def test_page_streams_an_answer_and_says_what_it_used(chat: "Page", watch: Watch, page_url: str) -> None:
    chat.add_init_script(
        "window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.blockedURI))"
    )
    chat.reload()
    chat.evaluate(STATES)
    box = chat.get_by_label("Your message")
    box.fill("What is")
    box.press("Shift+Enter")
    box.press_sequentially("a naka?")
    box.press("Enter")
    wait_for_end(chat)
    assert chat.evaluate("states") == ["waiting", "streaming", "ended"]

    assert chat.locator(".asked").inner_text() == "What is\na naka?"
    assert chat.locator(".answer").inner_text() == ANSWER
    assert box.input_value() == ""
    chat.locator(".meta", has_text=re.compile(r"^This message used 1,234 tokens; [\d,]+ left today$")).wait_for()
    assert chat.get_by_role("status").text_content() == ANSWER, "a screen reader gets the answer whole"

    assert chat.evaluate("[location.href, localStorage.length, document.cookie]") == [f"{page_url}/", 1, ""]
    assert watch.hosts == {page_url.removeprefix("http://")}
    assert chat.evaluate("violations") == []
    assert watch.console == []


@pytest.mark.slow
def test_nothing_is_sent_before_the_script_is_there_and_what_was_typed_stays(tab: "Page", page_url: str) -> None:
    held: list[Route] = []
    tab.route("**/static/chat.js", lambda route: held.append(route))  # noqa: PLW0108 - Playwright sets attributes on it
    tab.goto(page_url, wait_until="commit")
    tab.get_by_label("Your message").fill("silent")
    send = tab.get_by_role("button", name="Send")
    assert send.is_disabled()
    wait_until(tab, lambda: held)
    held.pop().continue_()
    send.click()
    tab.locator(".meta", has_text="Claude gave no answer to this.").wait_for()


@pytest.mark.slow
def test_text_arrives_whole_and_is_never_markup(chat: "Page", watch: Watch) -> None:
    ask(chat, "shred")
    wait_for_end(chat)
    lines = [line.strip() for line in HARD_TEXT.split("\n") if line]
    assert chat.locator(".answer").inner_text().split("\n") == [lines[0], "", *lines[1:]]
    assert chat.locator(".answer b").count() == 0
    assert chat.evaluate("Object.values(localStorage).map((kept) => JSON.parse(kept).turns[0].text)") == [HARD_TEXT]
    assert watch.console == []


@pytest.mark.slow
def test_stop_keeps_the_words_and_closes_the_stream(chat: "Page", watch: Watch, page_url: str) -> None:
    left_before = readers_left(page_url)
    ask(chat, "forever")
    chat.locator(".answer", has_text="word5").wait_for()
    chat.get_by_role("button", name="Stop").click()
    wait_for_end(chat)
    words = chat.locator(".answer").inner_text()
    assert words.startswith("word0 word1 word2 ")
    chat.locator(".meta", has_text=re.compile(r"^Stopped\. This message used 1,234 tokens")).wait_for()
    assert chat.locator(".answer").inner_text() == words, "nothing is written after the stop"
    assert readers_left(page_url) == left_before + 1, "the server saw the reader leave"
    assert chat.get_by_role("button", name="Send").is_visible()
    assert watch.console == []


def readers_left(page_url: str) -> int:
    """How many readers the stub saw leave."""
    with urlopen(f"{page_url}/stub/seen") as response:
        return len(json.load(response)["left"])


@pytest.mark.slow
def test_a_session_that_ended_is_said_and_nothing_has_to_be_typed_twice(chat: "Page", watch: Watch) -> None:
    ask(chat, "status 401")
    alert = chat.get_by_role("alert")
    alert.get_by_text("Your session has ended. Sign in again").wait_for()
    assert chat.get_by_role("link", name="Sign in").get_attribute("href") == "/sign-in?next=%2F"
    chat.reload()
    assert chat.get_by_label("Your message").input_value() == "status 401"
    assert all("401" in line for line in watch.console)


@pytest.mark.slow
@pytest.mark.parametrize(("who", "links"), [("user", 0), ("admin", 1)])
def test_whoever_may_is_shown_the_way_to_the_plans(tab: "Page", page_url: str, who: str, links: int) -> None:
    tab.goto(f"{page_url}/?as={who}")
    ask(tab, "limit 3600")
    tab.get_by_role("alert").get_by_text("You have reached your limit").wait_for()
    assert tab.get_by_role("link", name="See the plans").count() == links


@pytest.mark.slow
def test_what_was_said_outlives_a_reload_and_goes_when_it_is_deleted(chat: "Page", watch: Watch) -> None:
    ask(chat, "say *soft*")
    wait_for_end(chat)
    chat.locator(".meta", has_text="left today").wait_for()
    words = ".asked, .answer, .meta"
    before = chat.locator(words).all_inner_texts()
    ask(chat, "forever")
    chat.locator(".answer", has_text="word5").wait_for()
    chat.reload()
    assert chat.locator(words).all_inner_texts()[: len(before)] == before
    assert chat.locator(".answer em").count() == 1
    chat.locator(".meta", has_text="The answer broke off here.").wait_for()
    chat.locator("#left", has_text="tokens left today").wait_for()

    chat.get_by_role("button", name="Delete say *soft*").click()
    chat.reload()
    assert chat.locator("article").count() == 0
    assert chat.evaluate("localStorage.length") == 0
    assert watch.console == []


@pytest.mark.slow
def test_a_limit_says_when_to_come_back_and_opens_by_itself(chat: "Page", watch: Watch) -> None:
    chat.clock.install(time=NOON)
    chat.clock.pause_at(NOON + timedelta(seconds=1))
    ask(chat, "limit 2")
    chat.get_by_role("alert").get_by_text(
        re.compile(r"You have reached your limit\. You can send again at \d\d?:\d\d")
    ).wait_for()
    send = chat.get_by_role("button", name="Send")
    assert send.is_disabled()
    assert chat.get_by_role("timer").text_content() == "Ready in 2 s"
    chat.clock.run_for(1_500)
    assert chat.get_by_role("timer").text_content() == "Ready in 1 s"
    chat.get_by_label("Your message").press("Enter")
    assert sum(url.endswith("/chat") for url in watch.urls) == 1, "Enter does not go round the closed button"

    chat.clock.run_for(500)
    chat.get_by_role("status").get_by_text("You can send again.").wait_for(state="attached")
    assert send.is_enabled()
    assert chat.get_by_role("alert").is_hidden()
    assert chat.get_by_label("Your message").input_value() == "limit 2"
    assert all("429" in line for line in watch.console)


REFUSALS = [
    ("held 1", "Your other answers are still being written"),
    ("limit 200000", r"You can send again on \w+day \d+ \w+ at \d\d?:\d\d"),
    ("status 402", "check the subscription"),
    ("status 403", "Sign in with another key"),
    ("status 413", "Shorten it"),
    ("status 422", "Change it"),
]  # fmt: skip
FAILURES = [
    ("status 500", "Something went wrong on our side"),
    ("status 502", "Claude did not answer"),
    ("status 503", "Claude is busy"),
    ("status 504", "took too long"),
]


@pytest.mark.slow
def test_a_failure_of_ours_keeps_the_turn_and_offers_to_try_again(chat: "Page") -> None:
    for number, (message, words) in enumerate(FAILURES):
        ask(chat, message)
        chat.get_by_role("alert").get_by_text(re.compile(words)).wait_for()
        assert chat.locator(".asked").nth(number).inner_text() == message
        assert chat.get_by_label("Your message").input_value() == ""
    chat.reload()
    assert chat.locator(".meta", has_text="Not answered.").count() == len(FAILURES), "kept over a reload too"
    chat.get_by_role("button", name="Try again").last.click()
    chat.get_by_role("alert").get_by_text("took too long").wait_for()
    assert chat.locator(".asked").count() == len(FAILURES)
    ask(chat, "hello")
    wait_until(chat, lambda: chat.locator(".answer").last.inner_text() == ANSWER)


@pytest.mark.slow
def test_an_account_that_owes_is_told_to_pay_and_not_to_wait(tab: "Page", page_url: str) -> None:
    tab.goto(f"{page_url}/?as=admin")
    tab.locator("#left", has_text="tokens left today").wait_for()
    ask(tab, "owe 1900800")
    tab.get_by_role("alert").get_by_text("₹590 for usage is overdue since 1 Nov 2026.").wait_for()
    assert tab.locator("#timer").text_content() == "", "its limits come back with the payment"
    assert tab.locator("#left").text_content() == ""
    banner = tab.get_by_role("complementary", name="Account status")
    assert banner.get_by_role("link", name="Pay ₹590").get_attribute("href") == "/account/bills?state=open"
    assert tab.get_by_label("Your message").input_value() == "owe 1900800"


@pytest.mark.slow
def test_every_refusal_has_words_and_gives_the_message_back(chat: "Page") -> None:
    for message, words in REFUSALS:
        chat.reload()
        ask(chat, message)
        chat.get_by_role("alert").get_by_text(re.compile(words)).wait_for()
        assert chat.get_by_label("Your message").input_value() == message
        assert chat.locator("#empty").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "words"), [("break", "Claude did not answer"), ("cut", "The connection broke off")]
)
def test_an_answer_that_breaks_off_keeps_what_came(chat: "Page", watch: Watch, message: str, words: str) -> None:
    ask(chat, message)
    chat.get_by_role("alert").get_by_text(words).wait_for()
    assert chat.locator(".answer").inner_text() == "Half of an ans"
    chat.locator(".meta", has_text="The answer broke off here.").wait_for()
    assert chat.get_by_label("Your message").input_value() == message
    assert watch.console == []


@pytest.mark.slow
def test_an_answer_without_words_is_not_an_error(chat: "Page", watch: Watch) -> None:
    ask(chat, "silent")
    chat.locator(".meta", has_text="Claude gave no answer to this.").wait_for()
    assert chat.get_by_role("alert").is_hidden()
    assert watch.console == []


@pytest.mark.slow
def test_an_unreachable_server_is_said(chat: "Page") -> None:
    chat.context.set_offline(True)
    ask(chat, "hello")
    chat.get_by_role("alert").get_by_text("Check your network").wait_for()


@pytest.mark.slow
def test_page_follows_the_answer_unless_the_reader_scrolled_up(chat: "Page") -> None:
    chat.set_viewport_size({"width": 375, "height": 420})
    ask(chat, "forever")
    chat.locator(".answer", has_text="word60").wait_for()
    wait_until(chat, lambda: chat.evaluate(AT_END))  # it follows with the next frame
    chat.locator("#thread").hover()
    chat.mouse.wheel(0, -300)
    chat.locator(".answer", has_text="word90").wait_for()
    assert not chat.evaluate(AT_END)
    chat.get_by_role("button", name="Stop").click()


@pytest.mark.slow
def test_page_follows_an_answer_that_grows_by_much_at_once(chat: "Page") -> None:
    chat.set_viewport_size({"width": 375, "height": 420})
    ask(chat, "chapters")
    wait_for_end(chat)
    wait_until(chat, lambda: chat.evaluate(AT_END))


@pytest.mark.slow
@pytest.mark.parametrize("width", [320])
def test_nothing_sticks_out_sideways(chat: "Page", width: int) -> None:
    chat.set_viewport_size({"width": width, "height": 640})
    ask(chat, "x" * 400)
    wait_for_end(chat)
    ask(chat, "limit 7425")
    chat.get_by_role("alert").get_by_text("You have reached your limit").wait_for()
    assert chat.evaluate(
        "[...document.querySelectorAll('body *:not(.unseen)')]"
        ".every((e) => e.getBoundingClientRect().right <= innerWidth)"
    )
    assert chat.evaluate(
        "thread.scrollWidth <= thread.clientWidth && document.documentElement.scrollHeight <= innerHeight"
    )


def test_example_client_works_from_another_origin(
    tab: "Page", watch: Watch, client_origin: str, page_url: str, chat_key: str
) -> None:
    tab.goto(f"{client_origin}/client.html")
    assert tab.get_by_label("Server").input_value() == "http://localhost:8000"
    tab.get_by_label("Server").fill(page_url)
    tab.get_by_label("API key").fill(chat_key)
    tab.get_by_label("Message").fill("hello")
    tab.get_by_role("button").click()
    tab.get_by_role("status").get_by_text("end of the month.").wait_for()
    assert tab.get_by_role("status").text_content() == ANSWER
    assert [line for line in watch.console if "favicon" not in line and "404" not in line] == []


@pytest.mark.slow
@pytest.mark.parametrize(("message", "key", "end"), [
    ("shred", "", HARD_TEXT),
    ("hello", "nk_test_wrong", "\n[401 Unauthorized: The key is not known.]"),
    ("break", "", "Half of an ans\n[The provider broke off.]"),
    ("cut", "", "Half of an ans\n[the answer broke off]"),
])  # fmt: skip
def test_example_client_tells_every_ending(
    tab: "Page", client_origin: str, page_url: str, chat_key: str, message: str, key: str, end: str
) -> None:
    tab.goto(f"{client_origin}/client.html")
    tab.get_by_label("Server").fill(page_url)
    tab.get_by_label("API key").fill(key or chat_key)
    tab.get_by_label("Message").fill(message)
    tab.get_by_role("button").click()
    tab.wait_for_function("(end) => document.querySelector('output').textContent === end", arg=end)
