"""The application in this process, with a provider made of bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from core.settings import Settings
from tests.raw_provider import RawProvider, Request, raw_provider

Answer = Callable[[Request], Awaitable[tuple[int, Any]]]
MODELS = [
    {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": f"2026-{month:02}-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000 if "haiku" in name else 1_000_000,
        "max_tokens": 64_000,
        "capabilities": {"batch": {"supported": True}},
    }
    for month, name in enumerate(
        [
            "claude-haiku-4-5-20251001",
            "claude-sonnet-4-6",
            *(f"claude-other-{number}" for number in range(9)),
            "claude-opus-5",
        ],
        1,
    )
]


class Provider:
    """Answers counts with the number of the body's bytes, and models by pages; `answer` may be replaced."""

    def __init__(self) -> None:
        self.answer: Answer = self.usual
        self.server: RawProvider | None = None

    @property
    def requests(self) -> list[Request]:
        """The requests received."""
        assert self.server is not None
        return self.server.requests

    @staticmethod
    async def usual(request: Request) -> tuple[int, Any]:
        """Answers as the provider does."""
        if request.counts:
            return 200, {"input_tokens": len(request.body)}
        query = parse_qs(urlsplit(request.line.split()[1]).query)
        names = [model["id"] for model in MODELS]
        start = names.index(query["after_id"][0]) + 1 if "after_id" in query else 0
        page = MODELS[start : start + int(query["limit"][0])]
        return 200, {"data": page, "has_more": page[-1] is not MODELS[-1], "last_id": page[-1]["id"]}

    async def write(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Writes one answer."""
        status, body = await self.answer(request)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nrequest-id: req_theirs\r\n"
        more = "anthropic-organization-id: org_theirs\r\n"
        writer.write(f"{head}{more}content-length: {len(data)}\r\n\r\n".encode() + data)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    async with raw_provider(made.write) as made.server:
        yield made


@pytest.fixture
def settings(settings: Settings, provider: Provider) -> Settings:
    """Settings with the provider."""
    assert provider.server is not None
    return settings.model_copy(update={"anthropic_base_url": provider.server.url})
