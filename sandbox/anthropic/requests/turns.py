"""Validation of a conversation: roles, empty content, and the pairing of tool uses and their results."""

from collections.abc import Iterator, Sequence
from typing import Any

from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.models import Model
from sandbox.anthropic.requests.blocks import check_block
from sandbox.anthropic.requests.head import Head
from sandbox.anthropic.requests.tools import is_paired_later

Json = dict[str, Any]

_ROLES = ("user", "assistant", "system")


def blocks_of(content: str | Sequence[Json] | None) -> Sequence[Json]:
    """Return the blocks of a content or a system prompt; a plain text is one block."""
    if isinstance(content, str):
        return ({"type": "text", "text": content},)
    return content or ()


def inner_blocks(block: Json) -> Sequence[Json]:
    """Return the blocks inside a block: of a tool result, or of a document's source."""
    content = block.get("content")
    source = block.get("source")
    if content is None and isinstance(source, dict):
        content = source.get("content")
    return [inner for inner in content if isinstance(inner, dict)] if isinstance(content, list) else ()


def check_turns(messages: Sequence[Json], head: Head, model: Model, *, whole: bool) -> None:
    """Refuse a conversation as Anthropic does; raises `ApiError` (400). One that is not whole continues a thread."""
    if not messages:
        raise ApiError(400, "messages: at least one message is required")
    for number, turn in enumerate(messages):
        _check_shape(turn, f"messages.{number}", last=number == len(messages) - 1)
    if messages[0]["role"] != "user":
        raise ApiError(400, 'messages: first message must use the "user" role')
    images = _count_images(messages)
    if images > model.max_images:
        raise ApiError(400, f"messages: too many images: {images} > {model.max_images}")
    for number, turn in enumerate(messages):
        if isinstance(turn["content"], str):
            continue
        for position, block in enumerate(turn["content"]):
            check_block(block, f"messages.{number}.content.{position}", turn["role"], head, images=images)
    _check_end(messages[-1])
    if whole:
        check_pairs(messages)


def _check_shape(turn: object, path: str, *, last: bool) -> None:
    """Check the role, and that there is content."""
    if not isinstance(turn, dict):
        raise ApiError(400, f"{path}: Input should be an object")
    if turn.get("role") not in _ROLES:
        raise ApiError(400, f"{path}.role: Input should be 'user', 'assistant' or 'system'")
    content = turn.get("content")
    if not isinstance(content, str | list):
        raise ApiError(400, f"{path}.content: Input should be a string or a list of blocks")
    if not content and not (last and turn["role"] == "assistant"):
        raise ApiError(400, f"{path}: text content must be non-empty")
    if isinstance(content, str) and content and not content.strip():
        raise ApiError(400, f"{path}: text content blocks must contain non-whitespace text")


def _count_images(messages: Sequence[Json]) -> int:
    """Count the images, also in tool results."""
    found = 0
    for turn in messages:
        for block in blocks_of(turn["content"]):
            if isinstance(block, dict):
                inner = inner_blocks(block) if block.get("type") == "tool_result" else ()
                found += sum(each.get("type") == "image" for each in (block, *inner))
    return found


def _check_end(turn: Json) -> None:
    """Refuse a last turn of the assistant that ends with a blank."""
    blocks = blocks_of(turn["content"])
    if turn["role"] == "assistant" and blocks and blocks[-1]["type"] == "text" and blocks[-1]["text"][-1:].isspace():
        raise ApiError(400, "messages: final assistant content cannot end with trailing whitespace")


def _merged(messages: Sequence[Json]) -> Iterator[tuple[int, str, list[Json]]]:
    """Yield number, role and blocks of the turns; consecutive ones of a role are one, as the API treats them."""
    role, first, blocks = "", 0, list[Json]()
    for number, turn in enumerate(messages):
        if turn["role"] == "system":  # an instruction between turns parts no pair
            continue
        if turn["role"] != role and blocks:
            yield first, role, blocks
            blocks = []
        if not blocks:
            first = number
        role = turn["role"]
        blocks.extend(blocks_of(turn["content"]))
    if blocks:
        yield first, role, blocks


def check_pairs(messages: Sequence[Json]) -> None:
    """Hold every tool use against the results in the next turn, and every result against the uses before it."""
    waiting: list[str] = []
    at = 0
    for number, role, blocks in _merged(messages):
        uses = [block["id"] for block in blocks if block["type"] == "tool_use" and not is_paired_later(block)]
        if role == "user":
            _check_results(number, blocks, waiting, at)
            waiting = []
        else:
            waiting, at = uses, number
            if len(set(uses)) < len(uses):
                raise ApiError(400, f"messages.{number}: `tool_use` ids must be unique")
    if waiting:
        raise _unanswered(at, waiting)


def _check_results(number: int, blocks: Sequence[Json], waiting: Sequence[str], at: int) -> None:
    leading: list[str] = []
    for block in blocks:
        if block["type"] != "tool_result":
            break
        leading.append(block["tool_use_id"])
    given = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    for position, name in enumerate(given):
        if name not in waiting:
            raise ApiError(
                400,
                f"messages.{number}.content.{position}: unexpected `tool_use_id` found in `tool_result` blocks: {name}"
                ". Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
            )
    if len(set(given)) < len(given):
        raise ApiError(400, f"messages.{number}: each tool_use must have a single result")
    missing = [name for name in waiting if name not in leading]
    if missing:
        raise _unanswered(at, missing)


def _unanswered(number: int, ids: Sequence[str]) -> ApiError:
    return ApiError(
        400,
        f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}"
        ". Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
    )
