"""Pydantic AI with its Anthropic model."""

import asyncio
import base64
from typing import Any

from pydantic_ai import Agent, BinaryContent
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ThinkingPart, UserPromptPart
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from tests.clients.scripts.driver import TASK, WRONG_KEY, Seen, failure_of, prompt, run


def agent(key: str = TASK.get("key", ""), instructions: str = "Be brief.", **settings: Any) -> Any:
    """An agent, pointed at Naka."""
    provider = AnthropicProvider(base_url=TASK["url"], api_key=key)
    model_settings: Any = {"max_tokens": 3000, **settings}
    return Agent(
        AnthropicModel(TASK["model"], provider=provider), instructions=instructions, model_settings=model_settings
    )


def usage_of(result: Any) -> list[int]:
    """The counts of the last answer; its input includes the caches."""
    usage = result.new_messages()[-1].usage
    read, kept = usage.cache_read_tokens, usage.cache_write_tokens
    return [usage.input_tokens - read - kept, usage.output_tokens, read, kept]


def text() -> Seen:
    result = agent().run_sync(prompt("text"))
    return {"text": result.output, "usage": [usage_of(result)]}


def stream() -> Seen:
    async def heard() -> Seen:
        async with agent().run_stream(prompt("stream")) as result:
            pieces = [piece async for piece in result.stream_text(delta=True)]
        return {"text": "".join(pieces), "usage": [usage_of(result)]}

    return asyncio.run(heard())


def turns() -> Seen:
    history = [
        ModelRequest([UserPromptPart("Say something.")]),
        ModelResponse([TextPart("Something.")]),
    ]
    return {"text": agent().run_sync(prompt("turns"), message_history=history).output}


def tool() -> Seen:
    heard: Seen = {}

    def weather(city: str) -> str:
        """The weather of a city."""
        heard["city"] = city
        return "dry"

    able = agent()
    able.tool_plain(weather)
    return {"text": able.run_sync(prompt("tool")).output, "input": heard}


def image() -> Seen:
    picture = BinaryContent(base64.b64decode(TASK["image"]), media_type="image/png")
    return {"text": agent().run_sync([prompt("image"), picture]).output}


def thinking() -> Seen:
    thinks = agent(anthropic_thinking={"type": "enabled", "budget_tokens": 1024})
    result = thinks.run_sync(prompt("thinking"))
    parts = result.new_messages()[-1].parts
    thought = any(isinstance(part, ThinkingPart) and part.content for part in parts)
    return {"thinking": thought, "text": result.output, "usage": [usage_of(result)]}


def cache() -> Seen:
    cached = agent(instructions=TASK["system"], anthropic_cache_instructions=True)
    return {"usage": [usage_of(cached.run_sync(prompt("cache"))) for _ in range(2)]}


def limit() -> Seen:
    return failure_of(lambda: agent(TASK["limited_key"]).run_sync(prompt("limit")))


def key() -> Seen:
    return failure_of(lambda: agent(WRONG_KEY).run_sync(prompt("key")))


def cancel() -> Seen:
    async def left() -> Seen:
        async with agent().run_stream(prompt("cancel")) as result:
            async for piece in result.stream_text(delta=True):
                return {"text": bool(piece)}
        return {"text": False}

    return asyncio.run(left())


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
