"""The body of `/chat/ui`: what `useChat` keeps of a conversation becomes one that the provider takes."""

import json
from typing import Any

import pytest

from api.gateway.chat.ui_call import read_ui
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.prompts import ChatPrompt, Turn
from api.http.body import InvalidBody
from core.settings import Settings
from tests.api.conftest import Api

SETTINGS = Settings.model_validate({"chat_system": "Be brief.", "chat_model": "claude-sonnet-4-6"})
SCOPE: dict[str, Any] = {"headers": [], "query_string": b""}
SECRET = "xylophone"


def said(role: str, *parts: str | dict[str, Any]) -> dict[str, Any]:
    """A message; a string is a part of text."""
    whole = [{"type": "text", "text": part, "state": "done"} if isinstance(part, str) else part for part in parts]
    return {"id": "m", "role": role, "parts": whole}


async def read(*messages: Any, **more: Any) -> ChatPrompt:
    upstream = Upstream(Settings.model_validate({"anthropic_base_url": "http://127.0.0.1:9", "anthropic_api_key": "k"}))
    body = {"id": "c", "messages": list(messages), "trigger": "submit-message", "messageId": None, **more}
    try:
        prompt = (await read_ui(SCOPE, json.dumps(body).encode(), SETTINGS, upstream)).prompt
    finally:
        await upstream.close()
    assert isinstance(prompt, ChatPrompt)
    return prompt


async def test_a_conversation_is_sent_in_order() -> None:
    reasoning = {"type": "reasoning", "text": "hm", "state": "done"}
    source = {"type": "source-url", "sourceId": "s", "url": "https://naka.example"}
    prompt = await read(
        said("user", "What is a naka?"),
        said("assistant", {"type": "step-start"}, reasoning, "A toll", "post.", source, {"type": "data-x", "data": 1}),
        said("user", "And who pays?"),
        model="claude-haiku-4-5",
    )
    earlier = (Turn("user", "What is a naka?"), Turn("assistant", "A toll\n\npost."))
    assert prompt == ChatPrompt("claude-haiku-4-5", "Be brief.", "And who pays?", earlier)


async def test_what_a_page_keeps_after_a_stop_or_an_error_is_one_question() -> None:
    prompt = await read(said("user", "One?"), said("assistant", {"type": "step-start"}), said("user", "Two?"))
    assert (prompt.message, prompt.earlier) == ("One?\n\nTwo?", ())
    prompt = await read(said("user", "One?"), said("user", " "), said("user", "Two?"))
    assert prompt.message == "One?\n\nTwo?"


async def test_a_greeting_is_left_out() -> None:
    prompt = await read(said("assistant", "How can I help?"), said("user", "Hello"))
    assert (prompt.message, prompt.earlier) == ("Hello", ())


async def test_systems_are_joined_and_replace_the_default() -> None:
    prompt = await read(said("system", "In verse."), said("user", "Hello"), system="Be kind.")
    assert prompt.system == "Be kind.\n\nIn verse."
    assert (await read(said("user", "Hello"), system="")).system == ""


FILE = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,xylophone"}
TOOL = {"type": "tool-weather", "toolCallId": "1", "state": "output-available", "input": {}, "output": SECRET}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages"),
        (None, "messages"),
        ([said("user")], r"messages\[0\]: the last message must be the user's, with text"),
        ([said("user", " \n")], "the last message"),
        ([said("user", "a"), said("assistant", SECRET)], r"messages\[1\]: the last message"),
        ([said("user", "a"), said("user", "")], r"messages\[1\]: the last message"),
        ([said("assistant", SECRET)], "the last message"),
        ([said("system", SECRET)], "the last message"),
        ([said("tool", SECRET)], r"messages\[0\]\.role: must be user, assistant or system"),
        ([said("user", SECRET, FILE)], r"messages\[0\]\.parts\[1\]: files and tools"),
        ([said("user", "a"), said("assistant", TOOL, "b"), said("user", "c")], r"messages\[1\]\.parts\[0\]: files and"),
        ([{"role": "user"}], "parts"),
        ([{"role": "user", "content": SECRET}], "parts"),
        ([{"role": "user", "parts": [{"text": SECRET}]}], "type"),
        ([{"role": "user", "parts": [{"type": "text", "text": 7}]}], "text"),
        ([said("user", "\ud800")], "not JSON in UTF-8"),
        ([SECRET], "messages"),
    ],
)
async def test_a_conversation_that_cannot_be_sent_is_refused(messages: Any, words: str) -> None:
    with pytest.raises(InvalidBody, match=words) as refused:
        await read(*(messages or []), **({} if messages is not None else {"messages": None}))
    assert SECRET not in str(refused.value)


async def test_a_body_that_is_no_json_is_refused() -> None:
    upstream = Upstream(Settings.model_validate({"anthropic_base_url": "http://127.0.0.1:9", "anthropic_api_key": "k"}))
    try:
        for body in (b"", b"[" * 100_000, b"\xff", b"null", b'"x"'):
            with pytest.raises(InvalidBody):
                await read_ui(SCOPE, body, SETTINGS, upstream)
    finally:
        await upstream.close()


async def test_a_page_that_resumes_finds_no_running_answer(api: Api) -> None:
    """`useChat({resume: true})` asks so, and takes any other status than 204 for an error."""
    answer = await api.http.get("/chat/ui/a-chat/stream")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await api.http.post("/chat/ui/a-chat/stream")).status_code == 405
