"""Conversations on the chat page: what goes along, what is left out, and what can be done with each turn."""

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import Watch, axe
from tests.browser.test_chat_page import ANSWER, ask, wait_for_end, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

LEFT_OUT = "The messages above are no longer sent"
FILL = """() => {
  for (let room = 2 ** 22, filler = ""; room > 500; ) {
    try {
      localStorage.setItem("filler", filler + "x".repeat(room));
      filler += "x".repeat(room);
    } catch {
      room >>= 1;
    }
  }
}"""


def settle(page: "Page") -> None:
    """Waits until the last answer has ended and says what it used."""
    wait_for_end(page)
    page.locator("article:last-of-type .meta", has_text="left today").wait_for()


def say(page: "Page", *messages: str) -> None:
    """Asks one after the other."""
    for message in messages:
        ask(page, message)
        settle(page)


def recalled(page: "Page") -> list[str]:
    """What the stub was sent before its last `recall`, `fits` or `room`: the model and the earlier turns."""
    return [line for line in page.locator(".answer").last.inner_text().split("\n") if line]


def titles(page: "Page") -> list[str]:
    return page.locator("#shelf li button:first-child").all_inner_texts()


@pytest.mark.slow
def test_earlier_turns_go_along(chat: "Page", watch: Watch) -> None:
    say(chat, "say one", "silent", "say two", "recall")
    assert recalled(chat) == [
        "claude-sonnet-4-6", "user: say one", "assistant: one", "user: say two", "assistant: two"
    ], "a message without an answer is no turn"  # fmt: skip
    chat.reload()
    say(chat, "recall")
    assert "user: say one" in recalled(chat)
    assert watch.console == []
    assert axe(chat) == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fits", "room"])
def test_the_oldest_turns_are_left_out_when_they_do_not_fit(chat: "Page", verb: str) -> None:
    say(chat, *(f"say {number}" for number in range(4)))
    assert chat.get_by_text(LEFT_OUT).is_hidden()
    say(chat, f"{verb} 4")
    assert recalled(chat)[1:] == ["user: say 2", "assistant: 2", "user: say 3", "assistant: 3"]
    assert chat.locator("#left-out + article .asked").inner_text() == "say 2"
    chat.get_by_text(LEFT_OUT).wait_for()

    chat.reload()
    chat.get_by_text(LEFT_OUT).wait_for()
    say(chat, "recall")
    assert recalled(chat)[1] == "user: say 2", "what was left out is not tried again"


@pytest.mark.slow
def test_a_message_that_is_too_large_alone_is_refused_and_nothing_is_lost(chat: "Page") -> None:
    say(chat, "say one", "say two")
    ask(chat, "fits -1")
    chat.get_by_role("alert").get_by_text("Shorten it").wait_for()
    assert chat.get_by_label("Your message").input_value() == "fits -1"
    assert chat.locator(".asked").all_inner_texts() == ["say one", "say two"]
    assert chat.get_by_text(LEFT_OUT).is_hidden()


@pytest.mark.slow
def test_more_turns_than_a_body_may_have_are_not_even_tried(chat: "Page", watch: Watch) -> None:
    say(chat, f"say {'a' * 60_000}", "say two", "recall")
    assert recalled(chat)[1:] == ["user: say two", "assistant: two"]
    chat.get_by_text(LEFT_OUT).wait_for()
    assert sum(urlsplit(url).path == "/chat" for url in watch.urls) == 3


@pytest.mark.slow
def test_regenerating_asks_again_and_replaces_the_answer(chat: "Page") -> None:
    say(chat, "say one", "recall")
    chat.get_by_role("button", name="Regenerate").last.click()
    settle(chat)
    assert recalled(chat)[1:] == ["user: say one", "assistant: one"]
    assert chat.locator(".asked").all_inner_texts() == ["say one", "recall"]


@pytest.mark.slow
def test_an_earlier_message_is_edited_and_what_follows_goes(chat: "Page") -> None:
    say(chat, "say one", "say two", "say three")
    box = chat.get_by_label("Your message")
    box.fill("half a word")
    chat.get_by_role("button", name="Edit").nth(1).click()
    assert box.input_value() == "say two"
    box.press("Escape")
    assert box.input_value() == "half a word"

    chat.get_by_role("button", name="Edit").nth(1).click()
    say(chat, "recall")
    assert recalled(chat)[1:] == ["user: say one", "assistant: one"]
    assert chat.locator(".asked").all_inner_texts() == ["say one", "recall"]
    box.press("ArrowUp")
    assert box.input_value() == "recall", "the last message, from the keyboard"


@pytest.mark.slow
def test_an_edited_message_that_is_refused_leaves_the_conversation(chat: "Page") -> None:
    say(chat, "say one", "say two")
    chat.get_by_role("button", name="Edit").first.click()
    ask(chat, "status 502")
    chat.get_by_role("alert").get_by_text("Claude did not answer").wait_for()
    assert chat.locator(".asked").all_inner_texts() == ["say one", "say two"]
    assert chat.get_by_label("Your message").input_value() == "status 502"
    chat.get_by_text("You are editing an earlier message").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize(("granted", "why"), [("300", "the end of your limit"), ("2048", "one answer may have, 2,048")])
def test_a_cut_answer_says_why_and_goes_on(chat: "Page", granted: str, why: str) -> None:
    say(chat, f"long {granted}")
    chat.locator(".cut", has_text=re.compile(f"This answer was cut: it reached .*{why}")).wait_for()
    chat.get_by_role("button", name="Continue").click()
    settle(chat)
    assert chat.locator(".asked").all_inner_texts() == [f"long {granted}", "Continue exactly where you stopped."]
    say(chat, "recall")
    assert recalled(chat)[1] == f"user: long {granted}"


@pytest.mark.slow
def test_an_answer_and_its_code_are_copied(chat: "Page", page_url: str) -> None:
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=page_url)
    say(chat, "hello")
    chat.get_by_role("button", name="Copy", exact=True).click()
    chat.get_by_role("button", name="Copied").wait_for()
    assert chat.evaluate("navigator.clipboard.readText()") == ANSWER

    say(chat, "say Try this:\n```sh\nls -l # all\n```")
    chat.get_by_role("button", name="Copy code").click()
    wait_until(chat, lambda: chat.evaluate("navigator.clipboard.readText()") == "ls -l # all")


@pytest.mark.slow
def test_several_conversations_are_kept_listed_and_deleted(chat: "Page", watch: Watch) -> None:
    say(chat, "say one two three")
    chat.get_by_role("button", name="New chat").click()
    assert chat.locator("article").count() == 0
    long = "say " + "many words " * 10
    say(chat, long, "recall")
    assert "user: say one two three" not in recalled(chat)
    assert titles(chat) == ["say many words many words many words many words…", "say one two three"]

    chat.get_by_role("button", name="say one two three", exact=True).click()
    assert chat.locator(".asked").all_inner_texts() == ["say one two three"]
    chat.reload()
    assert chat.locator(".asked").all_inner_texts() == ["say one two three"], "the tab keeps its own"
    chat.get_by_role("button", name="Delete say one two three").click()
    assert chat.locator("#empty").is_visible()
    assert len(titles(chat)) == 1
    chat.get_by_role("button", name="Undo").click()
    assert chat.locator(".asked").all_inner_texts() == ["say one two three"]
    assert len(titles(chat)) == 2

    other = chat.context.new_page()
    other.goto(chat.url)
    assert titles(other) == titles(chat)
    assert other.locator("article").count() == 0, "another tab begins anew"
    other.get_by_role("button", name="Delete say one two three").click()
    wait_until(chat, lambda: len(titles(chat)) == 1)
    assert watch.console == []


@pytest.mark.slow
def test_a_conversation_that_is_left_or_deleted_while_it_is_answered_stops(chat: "Page") -> None:
    ask(chat, "forever one")
    chat.locator(".answer", has_text="word5").wait_for()
    chat.get_by_role("button", name="New chat").click()
    assert chat.get_by_role("button", name="Send").is_visible()
    chat.get_by_role("button", name="forever one", exact=True).click()
    chat.locator(".meta", has_text="Stopped.").wait_for()

    chat.get_by_role("button", name="New chat").click()
    ask(chat, "forever two")
    chat.locator(".answer", has_text="word5").wait_for()
    chat.get_by_role("button", name="Delete forever two").click()
    chat.wait_for_timeout(500)
    assert titles(chat) == ["forever one"]


@pytest.mark.slow
def test_the_model_is_chosen_for_each_conversation(chat: "Page") -> None:
    assert chat.get_by_label("Model").locator("option").all_inner_texts() == ["claude-haiku-4-5", "claude-sonnet-4-6"]
    chat.get_by_label("Model").select_option("claude-haiku-4-5")
    say(chat, "recall")
    assert recalled(chat) == ["claude-haiku-4-5"]
    chat.get_by_role("button", name="New chat").click()
    chat.get_by_label("Model").select_option("claude-sonnet-4-6")
    chat.get_by_role("button", name="recall", exact=True).click()
    assert chat.get_by_label("Model").input_value() == "claude-haiku-4-5"


@pytest.mark.parametrize(("who", "costs"), [("user", 0), ("admin", 1)])
def test_the_cost_is_for_those_who_pay(tab: "Page", page_url: str, who: str, costs: int) -> None:
    tab.goto(f"{page_url}/?as={who}")
    say(tab, "hello")
    assert tab.locator(".meta", has_text="Model cost $0.0065").count() == costs


@pytest.mark.slow
def test_a_full_storage_lets_the_oldest_conversation_go(chat: "Page", watch: Watch) -> None:
    say(chat, "say " + "y" * 5_000)
    chat.get_by_role("button", name="New chat").click()
    say(chat, "say newer")
    chat.evaluate(FILL)
    say(chat, "say " + "z" * 2_000)
    chat.reload()
    assert chat.locator("article").count() == 2
    assert titles(chat) == ["say newer"]
    assert watch.console == []


@pytest.mark.slow
def test_on_a_narrow_window_the_list_opens_over_the_conversation(chat: "Page") -> None:
    chat.set_viewport_size({"width": 360, "height": 640})
    say(chat, "say one")
    way = chat.get_by_role("button", name="Conversations")
    assert chat.get_by_role("button", name="New chat").is_hidden()
    way.click()
    assert way.get_attribute("aria-expanded") == "true"
    assert axe(chat) == []
    chat.keyboard.press("Escape")
    assert chat.get_by_role("button", name="New chat").is_hidden()
    way.press("Enter")
    chat.get_by_role("button", name="New chat").press("Enter")
    assert chat.locator("#empty").is_visible()
