"""What the tests of the simulator share: requests, the ledgers, and answers without their ids."""

import json
import struct
from base64 import b64encode
from typing import Any
from uuid import uuid4

import anthropic
import httpx2

from tests.sandbox.test_anthropic import KEY, chat, events

OTHER_KEY = "other-key"
HEADERS = {"x-api-key": KEY, "anthropic-version": "2026-10-21"}
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}, "unit": {"enum": ["C"]}},
        "required": ["city", "days"],
    },
}
Json = dict[str, Any]


class Bench:
    """One simulator: requests by hand, and its ledgers."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def post(self, body: Json, path: str = "/v1/messages", **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, json=body, headers=named)

    async def rows(self, ref: str) -> list[Json]:
        found: list[Json] = (await self.http.get("/_sim/inferences", params={"ref": ref})).json()["items"]
        return found

    async def entries(self, ref: str) -> list[Json]:
        found: list[Json] = (await self.http.get("/_sim/ledger", params={"ref": ref})).json()["items"]
        return found

    async def stream(self, prompt: str, **fields: Any) -> list[tuple[str, Json]]:
        answer = await self.post(chat(prompt, stream=True, **fields))
        assert answer.status_code == 200, answer.text
        return events(answer.content)


async def both(resource: Any, /, **body: Any) -> tuple[Json, Json]:
    """Return the answer not streamed, and the one that the SDK gathers from the stream."""
    whole = (await resource.create(**body)).to_dict()
    async with resource.stream(**body) as stream:
        gathered = (await stream.get_final_message()).to_dict()
    for message in (whole, gathered):
        message.pop("id")
        for block in message["content"]:
            block.pop("parsed_output", None)
    return whole, gathered


def turns(*said: Any) -> list[Json]:
    """Make turns of user and assistant, beginning with the user."""
    return [{"role": ("user", "assistant")[number % 2], "content": content} for number, content in enumerate(said)]


def png(width: int, height: int) -> Json:
    """Make an image block whose header tells this size."""
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x06\x00\x00\x00"
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64encode(data).decode()}}


def fresh() -> str:
    """Make a text that no other test has."""
    return uuid4().hex


def marker(**script: Any) -> str:
    """Write a script."""
    return f"[[sim {json.dumps(script)}]]"


def error_of(raised: anthropic.APIStatusError) -> Json:
    """Return the body of an error."""
    body: Json = raised.response.json()
    return body
