"""Instructor, which gets its models by a forced tool."""

from typing import Any

import instructor
from anthropic import Anthropic
from pydantic import create_model

from tests.clients.scripts.driver import TASK, Seen, failure_of, prompt, run

Weather = create_model("weather", city=(str, ...))
"""Its name becomes the tool's."""


def client(key: str = TASK.get("key", "")) -> Any:
    """Instructor around Anthropic's SDK."""
    return instructor.from_anthropic(Anthropic(base_url=TASK["url"], api_key=key))


def said(name: str, content: Any = None, **more: Any) -> Any:
    """The model made of an answer."""
    history = [{"role": "user", "content": content or prompt(name)}]
    options = {"model": TASK["model"], "max_tokens": 3000, "messages": history, "response_model": Weather, **more}
    return client().messages.create(**options)


def tool() -> Seen:
    answer: Any = said("tool")
    usage = answer._raw_response.usage
    return {"input": answer.model_dump(), "usage": [[usage.input_tokens, usage.output_tokens, 0, 0]]}


def image() -> Seen:
    picture = {"type": "base64", "media_type": "image/png", "data": TASK["image"]}
    content = [{"type": "image", "source": picture}, {"type": "text", "text": prompt("image")}]
    return {"input": said("image", content).model_dump()}


def stream() -> Seen:
    history = [{"role": "user", "content": prompt("stream")}]
    parts = client().create_partial(
        model=TASK["model"], max_tokens=3000, messages=history, response_model=Weather, max_retries=0
    )
    return {"input": list(parts)[-1].model_dump()}


def limit() -> Seen:
    history = [{"role": "user", "content": prompt("limit")}]
    return failure_of(
        lambda: client(TASK["limited_key"]).messages.create(
            model=TASK["model"], max_tokens=3000, messages=history, response_model=Weather
        )
    )


if __name__ == "__main__":
    run({"tool": tool, "stream": stream, "image": image, "limit": limit})
