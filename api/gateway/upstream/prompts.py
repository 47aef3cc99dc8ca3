"""Prompts that can be sent to Anthropic. Pure."""

from dataclasses import dataclass
from typing import Protocol

import msgspec

from api.gateway.upstream.pool import Header, UpstreamRequest

_VERSION = b"2026-10-21"
"""The API version of prompts that we write ourselves, as the SDK 2 sends it."""
_OWN_HEADERS: tuple[Header, ...] = ((b"content-type", b"application/json"), (b"anthropic-version", _VERSION))


class Prompt(Protocol):
    """A prompt that can be sent."""

    def request(self, max_tokens: int) -> UpstreamRequest:
        """The request for an answer of at most `max_tokens`."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of a conversation; `role` is `user` or `assistant`."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A prompt of plain text; an empty `system` is not sent. `earlier`: the turns before `message`."""

    model: str
    system: str
    message: str
    earlier: tuple[Turn, ...] = ()

    def request(self, max_tokens: int) -> UpstreamRequest:
        """The request for a streamed answer of at most `max_tokens`."""
        body: dict[str, object] = {"model": self.model, "max_tokens": max_tokens, "messages": self.messages}
        if self.system:
            body["system"] = self.system
        body["stream"] = True
        return UpstreamRequest(_OWN_HEADERS, [msgspec.json.encode(body)])

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns of the conversation."""
        turns = (*self.earlier, Turn("user", self.message))
        return [{"role": turn.role, "content": turn.text} for turn in turns]
