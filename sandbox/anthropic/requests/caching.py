"""The marks of prompt caching: the prompt as segments in the order that is cached, and the checks on its marks.

The order is tools, system, messages. A segment is one block; its identity leaves `cache_control` out, so that moving a
mark keeps a prefix the same.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.requests.turns import blocks_of, inner_blocks

Json = dict[str, Any]

MAX_MARKS = 4
_STRIPPED = "x-anthropic-billing-header:"  # Claude Code's first block; the API takes it off before anything else
_TTLS = ("5m", "1h")
_UNMARKABLE = ("thinking", "redacted_thinking")


def segments(
    tools: Sequence[Json] | None, system: str | Sequence[Json] | None, messages: Sequence[Json]
) -> Iterator[tuple[str, Json]]:
    """Yield every block of a prompt with the place it stands in."""
    for tool in tools or ():
        yield "tools", tool
    for number, block in enumerate(blocks_of(system)):
        if number > 0 or not str(block.get("text")).startswith(_STRIPPED):
            yield "system", block
    for turn in messages:
        for block in blocks_of(turn["content"]):
            yield turn["role"], block


def identity(place: str, block: Json) -> bytes:
    """Return the bytes that stand for a segment in a prefix."""
    plain = {name: value for name, value in block.items() if name != "cache_control"}
    return place.encode() + b"\x00" + msgspec.json.encode(plain) + b"\x00"


def mark_of(block: Json) -> str | None:
    """Return the time to live of a block's mark, also of one inside a tool result or a document."""
    control = block.get("cache_control")
    if isinstance(control, dict):
        return str(control.get("ttl") or "5m")
    return next((mark for inner in inner_blocks(block) if (mark := mark_of(inner)) is not None), None)


def check_marks(
    tools: Sequence[Json] | None,
    system: str | Sequence[Json] | None,
    messages: Sequence[Json],
    top_level: Json | None,
) -> None:
    """Refuse more than four marks, unknown kinds, and a long-lived mark after a short-lived one."""
    marks = [] if top_level is None else [_checked(top_level, "cache_control")]
    found: list[str] = []
    for place, block in segments(tools, system, messages):
        for each in (block, *inner_blocks(block)):
            control = each.get("cache_control")
            if control is not None:
                if each.get("type") in _UNMARKABLE:
                    raise ApiError(400, f"{place}: `cache_control` is not allowed on `{each['type']}` blocks")
                found.append(_checked(control, place))
    if len(marks) + len(found) > MAX_MARKS:
        raise ApiError(
            400, f"A maximum of {MAX_MARKS} blocks with cache_control may be provided. Found {len(marks) + len(found)}."
        )
    in_order = found + marks  # the one of the top level marks the last block
    if "5m" in in_order and "1h" in in_order[in_order.index("5m") :]:
        raise ApiError(
            400, "cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block."
        )


def _checked(control: object, path: str) -> str:
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise ApiError(400, f"{path}.cache_control.type: Input should be 'ephemeral'")
    ttl = control.get("ttl") or "5m"
    if ttl not in _TTLS:
        raise ApiError(400, f"{path}.cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
    return str(ttl)
