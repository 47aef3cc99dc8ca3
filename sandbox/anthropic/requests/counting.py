"""The count of a prompt's tokens, block by block; the same for messages and count_tokens.

Text weighs what the simulator's tokenizer says, structures weigh their JSON, and tools add the overhead that
Anthropic's documentation states.
"""

from typing import Any

import msgspec

from sandbox.anthropic.models import Model
from sandbox.anthropic.requests.caching import segments
from sandbox.anthropic.requests.fields import Request
from sandbox.anthropic.requests.media import REMOTE_DOCUMENT_TOKENS, image_tokens, pdf_tokens
from sandbox.anthropic.requests.tools import kind_of
from sandbox.anthropic.tokens import count_text

Json = dict[str, Any]

REQUEST_OVERHEAD_TOKENS = 8  # per request, on top of the system prompt's and the messages' text
TOOL_OVERHEAD_TOKENS = 346  # per request with any tool, for the choice auto and none
FORCED_TOOL_OVERHEAD_TOKENS = 313

_BUILT_IN = {
    "bash_": 325,
    "text_editor_": 700,
    "computer_toolset_": 4_600,
    "browser_toolset_": 6_700,
    "computer_": 1_201,
}


def count_input(request: Request) -> int:
    """Count the input tokens of a request."""
    fields = request.fields
    parts = segments(fields.tools, fields.system, fields.messages)
    return overhead(request) + sum(count_segment(place, block, request.model) for place, block in parts)


def overhead(request: Request) -> int:
    """Return the tokens that belong to no block."""
    if not request.tools:
        return REQUEST_OVERHEAD_TOKENS
    tools = FORCED_TOOL_OVERHEAD_TOKENS if request.forces_tool else TOOL_OVERHEAD_TOKENS
    return REQUEST_OVERHEAD_TOKENS + tools


def count_segment(place: str, block: Json, model: Model) -> int:
    """Count one tool definition or one block."""
    if place == "tools":
        return _count_tool(block)
    return count_block(block, model)


def count_block(block: Json, model: Model) -> int:  # noqa: PLR0911 - one for each kind
    """Count one block of a prompt."""
    kind = block["type"]
    if kind == "text":
        return count_text(block["text"])
    if kind == "image":
        return image_tokens(block["source"], model)
    if kind == "document":
        return _count_document(block, model)
    if kind == "tool_result":
        return _count_content(block.get("content"), model)
    if kind == "thinking":
        return count_text(block["thinking"])
    if kind == "search_result":
        return count_text(block["title"]) + count_text(block["source"]) + _count_content(block["content"], model)
    if kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
        return count_text(block["name"]) + count_json(block["input"])
    plain = {name: value for name, value in block.items() if name not in ("type", "cache_control", "tool_use_id")}
    return count_json(plain)


def count_json(value: object) -> int:
    """Count a structure by its compact JSON."""
    return count_text(msgspec.json.encode(value).decode())


def _count_content(content: object, model: Model) -> int:
    if isinstance(content, str):
        return count_text(content)
    blocks = content if isinstance(content, list) else ()
    return sum(count_block(block, model) for block in blocks if block.get("type") != "tool_reference")


def _count_document(block: Json, model: Model) -> int:
    source = block["source"]
    titles = sum(count_text(block[name]) for name in ("title", "context") if isinstance(block.get(name), str))
    if source["type"] == "base64":
        return titles + pdf_tokens(source)
    if source["type"] == "text":
        return titles + count_text(source["data"])
    if source["type"] == "content":
        return titles + _count_content(source["content"], model)
    return REMOTE_DOCUMENT_TOKENS


def _count_tool(tool: Json) -> int:
    kind = kind_of(tool)
    built_in = next((tokens for prefix, tokens in _BUILT_IN.items() if kind.startswith(prefix)), 0)
    if built_in:
        return built_in
    return count_json({name: value for name, value in tool.items() if name != "cache_control"})
