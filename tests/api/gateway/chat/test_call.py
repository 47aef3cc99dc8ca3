"""The body of `/chat`: what is sent to the provider, how large it is taken to be, and which bodies are refused."""

import json
from typing import Any

import pytest

from api.gateway.chat.call import read_chat
from api.gateway.codec import Call
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.prompts import ChatPrompt, Turn
from api.http.body import InvalidBody
from core.settings import Settings
from metering.pricing.tokens import PROMPT_OVERHEAD_TOKENS, TURN_OVERHEAD_TOKENS

SECRET = "xylophone"
SETTINGS = Settings.model_validate({"chat_system": "Be brief.", "chat_model": "claude-sonnet-4-6"})


async def read(**body: Any) -> Call:
    """Returns the call of a body."""
    upstream = Upstream(Settings.model_validate({"anthropic_base_url": "http://127.0.0.1:9", "anthropic_api_key": "k"}))
    try:
        return await read_chat({"headers": [], "query_string": b""}, json.dumps(body).encode(), SETTINGS, upstream)
    finally:
        await upstream.close()


def turn(role: object, text: object) -> dict[str, object]:
    return {"role": role, "text": text}


async def test_a_conversation_is_sent_in_order_and_its_bytes_bound_it() -> None:
    earlier = [turn("user", "What is a naka?"), turn("assistant", "नाका: a toll post. ")]
    call = await read(message="And who pays?", messages=earlier)

    assert call.prompt == ChatPrompt(
        "claude-sonnet-4-6",
        "Be brief.",
        "And who pays?",
        (Turn("user", "What is a naka?"), Turn("assistant", "नाका: a toll post. ")),
    )
    sent = json.loads(b"".join(call.prompt.request(100).parts))
    assert sent["messages"] == [
        {"role": "user", "content": "What is a naka?"},
        {"role": "assistant", "content": "नाका: a toll post. "},
        {"role": "user", "content": "And who pays?"},
    ]
    alone = (await read(message="And who pays?")).admission
    more = sum(len(str(each["text"]).encode()) for each in earlier) + 2 * TURN_OVERHEAD_TOKENS
    assert call.admission.prompt_bound == alone.prompt_bound + more
    assert alone.prompt_likely < call.admission.prompt_likely < call.admission.prompt_bound


@pytest.mark.parametrize("messages", [{}, {"messages": None}, {"messages": []}])
async def test_without_earlier_turns_the_body_is_what_it_was(messages: dict[str, Any]) -> None:
    call = await read(message="hi", **messages)

    assert b"".join(call.prompt.request(7).parts) == (
        b'{"model":"claude-sonnet-4-6","max_tokens":7,"messages":[{"role":"user","content":"hi"}],'
        b'"system":"Be brief.","stream":true}'
    )
    assert call.admission.prompt_bound == len("hi") + len("Be brief.") + PROMPT_OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([turn("assistant", SECRET)], "messages[0].role"),
        ([turn("system", SECRET)], "messages[0].role"),
        ([turn("user", SECRET)], "messages[0].role"),
        ([turn("user", "hi"), turn("user", SECRET)], "messages[1].role"),
        ([turn("user", "hi"), turn(SECRET, "hi")], "messages[1].role"),
        ([turn("user", "hi"), turn("assistant", "hi"), turn("user", SECRET)], "messages[2].role"),
        ([turn("user", " \n\u3000"), turn("assistant", SECRET)], "messages[0].text"),
        ([turn("user", SECRET), turn("assistant", "")], "messages[1].text"),
        ([turn("user", SECRET), turn("assistant", 7)], "messages[1].text"),
        ([turn(None, SECRET)], "messages[0].role"),
        ([{"role": "user"}], "`text`"),
        ([SECRET], "messages[0]"),
        (SECRET, "messages"),
        (turn("user", SECRET), "messages"),
        ([turn("user", f"{SECRET} \ud800"), turn("assistant", "hi")], "UTF-8"),
        ([turn("user", "a"), turn("assistant", "b")] * 5001, "messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_earlier_turns_that_are_no_conversation(messages: object, field: str) -> None:
    with pytest.raises(InvalidBody) as refused:
        await read(message="hi", messages=messages)

    assert field in str(refused.value)
    assert SECRET not in str(refused.value)
