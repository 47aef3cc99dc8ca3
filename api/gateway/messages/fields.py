"""The fields of a Messages API request that admission and the classification look at; unknown ones pass. Pure."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

MAX_OUTPUT_TOKENS = 10_000_000
"""Refuses numbers that no model can mean and that prices could not hold exactly."""
_MAX_MODEL_LENGTH = 100

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_MODEL_LENGTH)]
OutputTokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_OUTPUT_TOKENS)]
Uses = Annotated[int, msgspec.Meta(ge=0, le=1_000)]
"""More would be held than prices can count exactly."""

NULL = msgspec.Raw(b"null")
"""A raw value that is missing; one that is null reads alike."""


def is_given(value: msgspec.Raw) -> bool:
    """Whether a raw value is there, and not null."""
    return bytes(memoryview(value)[:5]) != b"null"


class Tool(msgspec.Struct, frozen=True):
    """A definition in `tools`. `type` is None for a custom tool.

    In a `tool_addition` block it is a reference to one, or has the `definition` of another.
    """

    type: str | None = None
    model: str | None = None
    max_uses: Uses | None = None
    max_tokens: OutputTokens | None = None
    definition: "Tool | None" = None


class Source(msgspec.Struct, frozen=True):
    """The source of an image or a document."""

    type: str = ""
    media_type: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    content: "str | list[Block] | None" = None


class Block(msgspec.Struct, frozen=True):
    """A content block. `content` is that of a tool result, a search result or a fetched page.

    `tool` is of a `tool_addition`, `tool_changes` of a `compaction`.
    """

    type: str = ""
    source: Source | str | None = None
    content: "str | list[Block] | Block | None" = None
    tool: Tool | None = None
    tool_changes: "list[Block] | None" = None
    file_id: str | None = None


Content = str | list[Block] | Block | None


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    content: Content = None


class Thinking(msgspec.Struct, frozen=True):
    """The `thinking` of a request. `budget_tokens`: of `type` enabled only."""

    type: str = ""
    budget_tokens: OutputTokens | None = None


class OutputConfig(msgspec.Struct, frozen=True):
    """`format` asks for structured output."""

    format: msgspec.Raw = NULL


class Fallback(msgspec.Struct, frozen=True):
    """A model to try next, when the first one declines."""

    model: Name
    max_tokens: OutputTokens | None = None
    speed: str | None = None


class Edit(msgspec.Struct, frozen=True):
    """An edit of `context_management`."""

    type: str = ""


class ContextManagement(msgspec.Struct, frozen=True):
    """Edits of the history before each inference."""

    edits: list[Edit] | None = None


class McpServer(msgspec.Struct, frozen=True):
    """A server of `mcp_servers`."""


class Diagnostics(msgspec.Struct, frozen=True):
    """The `diagnostics` of a request."""

    previous_message_id: msgspec.Raw = NULL


class Fields(msgspec.Struct, frozen=True):
    """The top-level fields that are looked at. `max_tokens` is required by `/v1/messages` only."""

    model: Name
    messages: list[Message]
    max_tokens: OutputTokens | None = None
    stream: bool | None = None
    system: str | list[Block] | None = None
    tools: list[Tool] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: msgspec.Raw = NULL
    mcp_servers: list[McpServer] | None = None
    container: msgspec.Raw = NULL
    skills: msgspec.Raw = NULL
    thread: msgspec.Raw = NULL
    diagnostics: Diagnostics | None = None
    fallbacks: str | list[Fallback] | None = None
    fallback_credit_token: msgspec.Raw = NULL
    context_management: ContextManagement | None = None
    compaction: msgspec.Raw = NULL
    speed: str | None = None
    inference_geo: str | None = None
    service_tier: str | None = None

    def blocks(self) -> Iterator[Block]:
        """Every content block, also those inside of others, in no particular order."""
        waiting: list[Content] = [self.system, *(message.content for message in self.messages)]
        while waiting:
            content = waiting.pop()
            for block in [content] if isinstance(content, Block) else content if isinstance(content, list) else ():
                yield block
                waiting += block.content, block.tool_changes
                if isinstance(block.source, Source):
                    waiting.append(block.source.content)
