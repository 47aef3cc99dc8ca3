"""LiteLLM, which speaks HTTP by itself."""

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches prices from another host

import litellm

from tests.clients.scripts.driver import TASK, WEATHER, WRONG_KEY, Seen, failure_of, prompt, run

TOOL = {
    "type": "function",
    "function": {
        "name": WEATHER["name"],
        "description": WEATHER["description"],
        "parameters": WEATHER["input_schema"],
    },
}


def said(messages: str | list[Any], **more: Any) -> Any:
    """An answer of Naka."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    options = {"api_base": TASK["url"], "api_key": TASK["key"], "max_tokens": 3000, **more}
    return litellm.completion(model=f"anthropic/{TASK['model']}", messages=messages, **options)


def usage_of(usage: Any) -> list[int]:
    """The counts that the client sees; its prompt includes the caches."""
    read = getattr(usage, "cache_read_input_tokens", 0) or 0
    kept = getattr(usage, "cache_creation_input_tokens", 0) or 0
    return [usage.prompt_tokens - read - kept, usage.completion_tokens, read, kept]


def text() -> Seen:
    answer = said(prompt("text"))
    return {"text": answer.choices[0].message.content, "usage": [usage_of(answer.usage)]}


def stream() -> Seen:
    pieces = list(said(prompt("stream"), stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    return {"text": text, "usage": [usage_of(pieces[-1].usage)]}


def turns() -> Seen:
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say something."},
        {"role": "assistant", "content": "Something."},
        {"role": "user", "content": prompt("turns")},
    ]
    return {"text": said(history, temperature=0).choices[0].message.content}


def tool() -> Seen:
    history: list[Any] = [{"role": "user", "content": prompt("tool")}]
    asked = said(history, tools=[TOOL]).choices[0].message
    (call,) = asked.tool_calls
    history += [asked, {"role": "tool", "tool_call_id": call.id, "content": "dry"}]
    told = said(history, tools=[TOOL]).choices[0].message
    return {"input": json.loads(call.function.arguments), "text": told.content}


def image() -> Seen:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TASK['image']}"}}
    content = [picture, {"type": "text", "text": prompt("image")}]
    return {"text": said([{"role": "user", "content": content}]).choices[0].message.content}


def thinking() -> Seen:
    answer = said(prompt("thinking"), thinking={"type": "enabled", "budget_tokens": 1024})
    message = answer.choices[0].message
    return {"thinking": bool(message.reasoning_content), "text": message.content, "usage": [usage_of(answer.usage)]}


def cache() -> Seen:
    cached = {"type": "text", "text": TASK["system"], "cache_control": {"type": "ephemeral"}}
    history = [{"role": "system", "content": [cached]}, {"role": "user", "content": prompt("cache")}]
    return {"usage": [usage_of(said(history).usage) for _ in range(2)]}


def limit() -> Seen:
    return failure_of(lambda: said(prompt("limit"), api_key=TASK["limited_key"]))


def key() -> Seen:
    return failure_of(lambda: said(prompt("key"), api_key=WRONG_KEY))


def cancel() -> Seen:
    answer = said(prompt("cancel"), stream=True)
    heard = any(piece.choices[0].delta.content for piece in answer)
    answer.completion_stream.close()
    return {"text": heard}


if __name__ == "__main__":
    run(
        {
            "text": text,
            "stream": stream,
            "turns": turns,
            "tool": tool,
            "image": image,
            "thinking": thinking,
            "cache": cache,
            "limit": limit,
            "key": key,
            "cancel": cancel,
        }
    )
