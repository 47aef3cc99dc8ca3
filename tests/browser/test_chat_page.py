"""The chat page and the example client, used as a person uses them, in a real browser.

What the stub can be asked for is listed in `stub.py`. A refused request (401, 429) is logged to the console by the
browser itself; that line alone is allowed.
"""

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.browser.conftest import Watch

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

ANSWER = (
    "A toll post stands at the gate.\n\n"
    "It counts what passes, stops what may not, and sends the bill at the end of the month."
)
HARD_TEXT = "  two blanks\n\n<b>not bold</b> & “quotes” 😀 नाका\n: no comment\ndata: no field\n\ttab, end"

# name: (bytes, the events they hold as [type, data])
STREAMS: dict[str, tuple[bytes, list[list[str]]]] = {
    "LF": (b"data: a\n\ndata: b\n\n", [["message", "a"], ["message", "b"]]),
    "CR": (b"data: a\r\rdata: b\r\r", [["message", "a"], ["message", "b"]]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [["message", "a"], ["message", "b"]]),
    "line ends mixed": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n",
                        [["message", "a"], ["message", "b"], ["message", "c"]]),
    "several lines": (b"data: eins\ndata: zwei\r\ndata:\rdata: vier\n\n", [["message", "eins\nzwei\n\nvier"]]),
    "characters of 2 to 4 bytes": ("event: é\ndata: é€😀नाका\u2028\x85x\n\n".encode(), [["é", "é€😀नाका\u2028\x85x"]]),
    "broken UTF-8": (b"data: \xff\xf0\x9f!\n\n", [["message", "��!"]]),
    "comments": (b": beat\n\n:\n:data: x\ndata: a\n: in the middle\ndata: b\n\n", [["message", "a\nb"]]),
    "BOM": (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [["message", "a"], ["message", "b"]]),
    "a second BOM is text": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n", [["message", "\ufeffb"]]),
    "fields without colon": (b"data\n\ndata\ndata\n\nevent\ndata: a\n\n",
                             [["message", ""], ["message", "\n"], ["message", "a"]]),
    "one blank goes": (b"data:a\n\ndata: a\n\ndata:  a \n\ndata:\ta\n\n",
                       [["message", "a"], ["message", "a"], ["message", " a "], ["message", "\ta"]]),
    "colons in the value": (b"data: a: b:c\n\ndata::\n\n", [["message", "a: b:c"], ["message", ":"]]),
    "done": (b"data: a\n\nevent: done\ndata: \n\n", [["message", "a"], ["done", ""]]),
    "no data, no event": (b"event: lost\n\nid: 1\n\ndata: a\n\n", [["message", "a"]]),
    "type is of one event": (b"event: x\ndata: a\n\ndata: b\n\n", [["x", "a"], ["message", "b"]]),
    "last type wins": (b"event: y\ndata: a\nevent: x\n\n", [["x", "a"]]),
    "unknown fields": (b"dat: a\nDATA: a\n data: a\ndata : a\nretry: 60000\nfoo\ndata: b\n\n", [["message", "b"]]),
    "unclosed at the end": (b"data: a\n\ndata: b\n", [["message", "a"]]),
    "unclosed line at the end": (b"data: a\n\ndata: b", [["message", "a"]]),
    "CR as the very last byte": (b"data: a\r\n\r", [["message", "a"]]),
    "blank lines only": (b"\n\r\n\r\r\n\n", []),
    "nothing": (b"", []),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_sse_reader_gives_the_same_events_wherever_the_stream_is_cut(tab: "Page", page_url: str, name: str) -> None:
    data, expected = STREAMS[name]
    tab.goto(page_url)
    wrong = tab.evaluate(
        """async ([bytes, expected]) => {
            const { readEvents } = await import("/static/sse.js");
            const all = new Uint8Array(bytes);
            const cuts = [all.length ? Array.from(all, (_, i) => all.slice(i, i + 1)) : []];  // every byte by itself
            for (let a = 0; a <= all.length; a++)
                for (let b = a; b <= all.length; b++) cuts.push([all.slice(0, a), all.slice(a, b), all.slice(b)]);
            const wrong = [];
            for (const chunks of cuts) {
                const stream = new ReadableStream({ start(c) { chunks.forEach((x) => c.enqueue(x)); c.close(); } });
                const events = [];
                for await (const { type, data } of readEvents(stream)) events.push([type, data]);
                if (JSON.stringify(events) !== JSON.stringify(expected))
                    wrong.push([chunks.map((c) => c.length), events]);
            }
            return wrong.slice(0, 3);
        }""",
        [list(data), expected],
    )
    assert wrong == []


def test_sse_expectations_are_those_of_the_browsers_own_parser(tab: "Page", page_url: str) -> None:
    tab.goto(page_url)
    for name, (data, expected) in STREAMS.items():
        encoded = base64.urlsafe_b64encode(data).decode()
        events = tab.evaluate(
            """([path, types]) => new Promise((done) => {
                const events = [], source = new EventSource(path);
                for (const type of types) source.addEventListener(type, (e) => events.push([e.type, e.data]));
                source.onerror = () => { source.close(); done(events); };  // the end of the stream
            })""",
            [f"/stub/raw/{encoded}", sorted({kind for kind, _ in expected} | {"message", "lost"})],
        )
        assert events == expected, name


def test_sse_reader_gives_up_on_a_silent_stream_and_closes_it(tab: "Page", page_url: str) -> None:
    tab.goto(page_url)
    story = tab.evaluate(
        """async () => {
            const { readEvents } = await import("/static/sse.js");
            const story = [];
            const stream = new ReadableStream({
                start(c) { c.enqueue(new TextEncoder().encode("data: a\\n\\n")); },
                cancel() { story.push("closed"); },
            });
            try { for await (const { data } of readEvents(stream, 100)) story.push(data); }
            catch (error) { story.push(error.message); }
            return story;
        }"""
    )
    assert story == ["a", "closed", "The stream fell silent."]


def ask(page: "Page", message: str) -> None:
    page.get_by_label("Your message").fill(message)
    page.get_by_role("button", name="Send").click()


def wait_for_end(page: "Page") -> None:
    page.locator('article[data-state="ended"]').last.wait_for()


def test_page_streams_an_answer_and_says_what_it_used(chat: "Page", watch: Watch, page_url: str, chat_key: str) -> None:
    chat.add_init_script(
        "window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.blockedURI))"
    )
    chat.reload()
    assert chat.get_by_label("API key", exact=True).input_value() == chat_key, "the key outlives a reload of its tab"

    box = chat.get_by_label("Your message")
    box.fill("What is")
    box.press("Shift+Enter")
    box.press_sequentially("a naka?")
    box.press("Enter")
    chat.locator('article[data-state="streaming"]').wait_for()
    wait_for_end(chat)

    assert chat.locator(".asked").inner_text() == "What is\na naka?"
    assert chat.locator(".answer").text_content() == ANSWER
    assert box.input_value() == ""
    chat.locator(".meta", has_text=re.compile(r"^This message used 1,234 tokens; [\d,]+ left today$")).wait_for()
    assert chat.get_by_role("status").text_content() == ANSWER, "a screen reader gets the answer whole"

    assert chat.evaluate("[location.href, localStorage.length, document.cookie]") == [f"{page_url}/", 0, ""]
    assert not [url for url in watch.urls if chat_key in url]
    assert watch.hosts == {page_url.removeprefix("http://")}
    assert chat.evaluate("violations") == []
    assert watch.console == []


def test_text_arrives_whole_and_is_never_markup(chat: "Page", watch: Watch) -> None:
    ask(chat, "shred")
    wait_for_end(chat)
    assert chat.locator(".answer").text_content() == HARD_TEXT
    assert chat.locator(".answer *").count() == 0
    assert chat.locator(".answer").evaluate("(e) => getComputedStyle(e).whiteSpaceCollapse") == "preserve"
    assert watch.console == []


def test_stop_keeps_the_words_and_closes_the_stream(chat: "Page", watch: Watch, page_url: str) -> None:
    left_before = readers_left(page_url)
    ask(chat, "forever")
    chat.locator(".answer", has_text="word5").wait_for()
    chat.get_by_role("button", name="Stop").click()
    wait_for_end(chat)
    words = chat.locator(".answer").text_content() or ""
    assert words.startswith("word0 word1 word2 ")
    chat.locator(".meta", has_text=re.compile(r"^Stopped\. This message used 1,234 tokens")).wait_for()
    assert chat.locator(".answer").text_content() == words, "nothing is written after the stop"
    assert readers_left(page_url) == left_before + 1, "the server saw the reader leave"
    assert chat.get_by_role("button", name="Send").is_visible()
    assert watch.console == []


def readers_left(page_url: str) -> int:
    """How many readers the stub saw leave."""
    with urlopen(f"{page_url}/stub/seen") as response:
        return len(json.load(response)["left"])


def test_a_wrong_key_is_named_and_asked_for_again(chat: "Page", chat_key: str, watch: Watch) -> None:
    key = chat.get_by_label("API key", exact=True)
    key.fill("nk_test_mistyped")
    ask(chat, "hello")
    chat.get_by_role("alert").get_by_text("This key was not accepted. Check that you copied all of it").wait_for()
    assert key.evaluate("(e) => e === document.activeElement && e.ariaInvalid") == "true"
    assert chat.locator("article").count() == 0
    assert chat.get_by_label("Your message").input_value() == "hello", "nothing has to be typed twice"

    key.fill(chat_key)
    assert chat.get_by_role("alert").is_hidden()
    chat.get_by_role("button", name="Send").click()
    wait_for_end(chat)
    assert all("401" in line for line in watch.console)


@pytest.mark.parametrize("key", ["", "nk_test_“quoted”"])
def test_a_key_that_cannot_be_one_is_never_sent(tab: "Page", page_url: str, watch: Watch, key: str) -> None:
    tab.goto(page_url)
    tab.get_by_label("API key", exact=True).fill(key)
    ask(tab, "hello")
    tab.get_by_role("alert").get_by_text(re.compile("API key first|Copy it again")).wait_for()
    assert f"{page_url}/chat" not in watch.urls
    assert watch.console == []


def test_key_is_hidden_until_it_is_shown(chat: "Page") -> None:
    key = chat.get_by_label("API key", exact=True)
    assert key.get_attribute("type") == "password"
    chat.get_by_role("button", name="Show key").click()
    assert key.get_attribute("type") == "text"
    chat.get_by_role("button", name="Show key", pressed=True).click()
    assert key.get_attribute("type") == "password"


def test_a_limit_says_when_to_come_back_and_opens_by_itself(chat: "Page", watch: Watch) -> None:
    ask(chat, "limit 2")
    chat.get_by_role("alert").get_by_text(
        re.compile(r"You have reached your limit\. You can send again at \d\d?:\d\d")
    ).wait_for()
    send = chat.get_by_role("button", name="Send")
    assert send.is_disabled()
    assert re.fullmatch("Ready in [12] s", chat.get_by_role("timer").text_content() or "")
    chat.get_by_label("Your message").press("Enter")
    assert sum(url.endswith("/chat") for url in watch.urls) == 1, "Enter does not go round the closed button"

    chat.get_by_role("status").get_by_text("You can send again.").wait_for(state="attached")
    assert send.is_enabled()
    assert chat.get_by_role("alert").is_hidden()
    assert chat.get_by_label("Your message").input_value() == "limit 2"
    assert all("429" in line for line in watch.console)


@pytest.mark.parametrize(("message", "words"), [
    ("held 1", "Your other answers are still being written"),
    ("limit 200000", r"You can send again on \w+day \d+ \w+ at \d\d?:\d\d"),
    ("status 402", "check the subscription"),
    ("status 403", "Use another key"),
    ("status 413", "Shorten it"),
    ("status 422", "Change it"),
    ("status 500", "Something went wrong on our side. Send it again"),
    ("status 502", "Claude did not answer"),
    ("status 503", "not available right now"),
    ("status 504", "took too long"),
])  # fmt: skip
def test_every_refusal_has_words_and_gives_the_message_back(chat: "Page", message: str, words: str) -> None:
    ask(chat, message)
    chat.get_by_role("alert").get_by_text(re.compile(words)).wait_for()
    assert chat.get_by_label("Your message").input_value() == message
    assert chat.locator("#empty").is_visible()


@pytest.mark.parametrize(
    ("message", "words"), [("break", "Claude did not answer"), ("cut", "The connection broke off")]
)
def test_an_answer_that_breaks_off_keeps_what_came(chat: "Page", watch: Watch, message: str, words: str) -> None:
    ask(chat, message)
    chat.get_by_role("alert").get_by_text(words).wait_for()
    assert chat.locator(".answer").text_content() == "Half of an ans"
    chat.locator(".meta", has_text="The answer broke off here.").wait_for()
    assert chat.get_by_label("Your message").input_value() == message
    assert watch.console == []


def test_an_answer_without_words_is_not_an_error(chat: "Page", watch: Watch) -> None:
    ask(chat, "silent")
    chat.locator(".meta", has_text="Claude gave no answer to this.").wait_for()
    assert chat.get_by_role("alert").is_hidden()
    assert watch.console == []


def test_an_unreachable_server_is_said(chat: "Page") -> None:
    chat.context.set_offline(True)
    ask(chat, "hello")
    chat.get_by_role("alert").get_by_text("Check your network").wait_for()


def test_page_follows_the_answer_unless_the_reader_scrolled_up(chat: "Page") -> None:
    chat.set_viewport_size({"width": 375, "height": 420})
    at_end = "thread.scrollHeight - thread.scrollTop - thread.clientHeight < 48"
    ask(chat, "forever")
    chat.locator(".answer", has_text="word60").wait_for()
    assert chat.evaluate(at_end + " && thread.scrollTop > 0")
    chat.locator("#thread").hover()
    chat.mouse.wheel(0, -300)
    chat.locator(".answer", has_text="word90").wait_for()
    assert not chat.evaluate(at_end)
    chat.get_by_role("button", name="Stop").click()


@pytest.mark.parametrize("width", [320, 375, 1100])
def test_nothing_sticks_out_sideways(chat: "Page", width: int) -> None:
    chat.set_viewport_size({"width": width, "height": 640})
    ask(chat, "x" * 400)
    wait_for_end(chat)
    chat.get_by_role("button", name="API key").click()
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
