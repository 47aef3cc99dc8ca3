"""Anthropic's Python SDK, of any version."""

import inspect
from typing import Any

import anthropic
from anthropic import Anthropic

from tests.clients.scripts.driver import TASK, WEATHER, WRONG_KEY, Seen, failure_of, prompt, run

client = Anthropic(base_url=TASK["url"], api_key=TASK["key"])
BASIC: Any = {"model": TASK["model"], "max_tokens": 3000}


def said(name: str, **more: Any) -> Any:
    """A whole answer."""
    return client.messages.create(**{**BASIC, "messages": [{"role": "user", "content": prompt(name)}], **more})


def usage_of(answer: Any) -> list[int]:
    """The counts that the client sees."""
    usage = answer.usage
    return [
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens or 0,
        usage.cache_creation_input_tokens or 0,
    ]


def text() -> Seen:
    answer = said("text")
    assert answer._request_id
    return {"text": answer.content[0].text, "usage": [usage_of(answer)]}


def stream() -> Seen:
    with client.messages.stream(**BASIC, messages=[{"role": "user", "content": prompt("stream")}]) as events:
        heard = "".join(events.text_stream)
        final = events.get_final_message()
    return {"text": heard, "usage": [usage_of(final)]}


def turns() -> Seen:
    history = [
        {"role": "user", "content": "Say something."},
        {"role": "assistant", "content": "Something."},
        {"role": "user", "content": prompt("turns")},
    ]
    return {"text": said("turns", messages=history, system="Be brief.").content[0].text}


def tool() -> Seen:
    history: list[Any] = [{"role": "user", "content": prompt("tool")}]
    asked = said("tool", messages=history, tools=[WEATHER])
    use = asked.content[-1]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "dry"}
    history += [{"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    told = said("tool", messages=history, tools=[WEATHER])
    return {"input": use.input, "text": told.content[-1].text}


def runner() -> Seen:
    """The tool runner, which newer versions begin with a message thread."""
    heard = {}

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name
        """
        heard["city"] = city
        return "dry"

    history: Any = [{"role": "user", "content": prompt("runner")}]
    final: Any = client.beta.messages.tool_runner(**BASIC, messages=history, tools=[weather]).until_done()
    return {"input": heard, "text": final.content[-1].text}


def image() -> Seen:
    source = {"type": "base64", "media_type": "image/png", "data": TASK["image"]}
    content = [{"type": "image", "source": source}, {"type": "text", "text": prompt("image")}]
    return {"text": said("image", messages=[{"role": "user", "content": content}]).content[0].text}


def thinking() -> Seen:
    answer = said("thinking", thinking={"type": "enabled", "budget_tokens": 1024})
    first, second = answer.content
    return {"thinking": bool(first.thinking and first.signature), "text": second.text, "usage": [usage_of(answer)]}


def cache() -> Seen:
    system = [{"type": "text", "text": TASK["system"], "cache_control": {"type": "ephemeral"}}]
    return {"usage": [usage_of(said("cache", system=system)) for _ in range(2)]}


def limit() -> Seen:
    return refused("limit", TASK["limited_key"])


def key() -> Seen:
    return refused("key", WRONG_KEY)


def refused(name: str, other_key: str) -> Seen:
    """The error that a request with another key gets."""
    other: Any = client.with_options(api_key=other_key)
    return failure_of(lambda: other.messages.create(**BASIC, messages=[{"role": "user", "content": prompt(name)}]))


def cancel() -> Seen:
    with client.messages.stream(**BASIC, messages=[{"role": "user", "content": prompt("cancel")}]) as events:
        return {"text": bool(next(iter(events.text_stream)))}


def count() -> Seen:
    history: Any = [{"role": "user", "content": prompt("count")}]
    counted = client.messages.count_tokens(model=TASK["model"], messages=history, tools=[WEATHER])
    return {"counted": counted.input_tokens > 100}


def models() -> Seen:
    one = client.models.retrieve(TASK["model"])
    return {"listed": one.id == TASK["model"] and one.id in {model.id for model in client.models.list(limit=3)}}


SCENARIOS = {
    "text": text,
    "stream": stream,
    "turns": turns,
    "tool": tool,
    "runner": runner,
    "image": image,
    "thinking": thinking,
    "cache": cache,
    "limit": limit,
    "key": key,
    "cancel": cancel,
    "count": count,
    "models": models,
}
if not inspect.ismethod(getattr(client.beta.messages, "tool_runner", None)):
    del SCENARIOS["runner"]

if __name__ == "__main__":
    run(SCENARIOS)
