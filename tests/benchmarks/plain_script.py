"""The relay that Naka replaces, as it is usually written: no keys, quota or accounting. The benchmark's baseline."""

import os
from collections.abc import AsyncIterator

from anthropic import AsyncAnthropic
from fastapi import FastAPI
from pydantic import BaseModel
from sse_starlette.sse import EventSourceResponse

app = FastAPI()
client = AsyncAnthropic(base_url=os.environ["ANTHROPIC_BASE_URL"], api_key=os.environ["ANTHROPIC_API_KEY"])


class Chat(BaseModel):
    """The request body."""

    message: str
    system: str = "You are a concise assistant."


@app.post("/chat")
async def chat(body: Chat) -> EventSourceResponse:
    """Streams Claude's answer."""

    async def events() -> AsyncIterator[dict[str, str]]:
        async with client.messages.stream(
            model="claude-sonnet-4-6",
            max_tokens=2048,
            system=body.system,
            messages=[{"role": "user", "content": body.message}],
        ) as stream:
            async for text in stream.text_stream:
                yield {"data": text}
        yield {"event": "done", "data": ""}

    return EventSourceResponse(events())


@app.get("/readyz")
async def readyz() -> dict[str, bool]:
    """Reports readiness."""
    return {"ok": True}
