"""Usage of a request as Anthropic counts it: five disjoint token classes, thinking, and web searches. Pure.

Classes are never summed into one and never clamped. `message_start` has every input class, and is the only event with
the split of cache writes by time to live; `message_delta` is cumulative and overwrites the fields it has (source:
Anthropic's Messages API, streaming).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import add, attrgetter
from typing import Annotated

import msgspec

from core.money import ceil_div


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of one request. The token classes are disjoint; `thinking_tokens` are part of `output_tokens`.

    A web search is one that the provider's server tool ran; failed ones are free and not counted.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All input classes; decides a model's price band."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens

    @property
    def values(self) -> tuple[int, ...]:
        """The numbers in their order."""
        return _values_of(self)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*map(add, self.values, other.values))


_values_of: Callable[[Usage], tuple[int, ...]] = attrgetter(*(field.name for field in fields(Usage)))


NO_USAGE = Usage()


Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
"""A received count. A negative one, or one too large to price exactly, breaks the stream."""


Name = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z", max_length=200)]
"""A received name, which may be stored: Postgres text has no NUL, so a stream with one is invalid."""


class CacheCreation(msgspec.Struct, frozen=True):
    """The split of cache writes by time to live; only `message_start` has it."""

    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0


class OutputDetails(msgspec.Struct, frozen=True):
    """The parts of the output."""

    thinking_tokens: Count | None = None


class ServerToolUse(msgspec.Struct, frozen=True):
    """The runs of the provider's own tools. Fetches of web pages cost nothing beside their tokens."""

    web_search_requests: Count | None = None


class ReportedCounts(msgspec.Struct, frozen=True):
    """The counts of a received `usage` object, or of one of its iterations; null means the same as absent."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputDetails | None = None


class Iteration(ReportedCounts, frozen=True):
    """One of the inferences that made an answer. `model` null: the message's."""

    type: Name = ""
    model: Name | None = None


class ReportedUsage(ReportedCounts, frozen=True):
    """A received `usage` object; null means the same as absent, and unknown fields are ignored."""

    server_tool_use: ServerToolUse | None = None
    service_tier: Name | None = None
    inference_geo: Name | None = None
    speed: Name | None = None
    iterations: list[Iteration] | None = None

    def then(self, later: "ReportedUsage") -> "ReportedUsage":
        """This report, overwritten by the fields of a later one: reports are cumulative."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(later), strict=True)
        return ReportedUsage(*[mine if theirs is None or theirs in _UNSAID else theirs for mine, theirs in pairs])


_UNSAID = (OutputDetails(), ServerToolUse())


def overlay(start: ReportedUsage, delta: ReportedUsage | None) -> Usage:
    """The top-level usage of a message: `message_start`, overwritten by the fields of the last `message_delta`.

    Only `message_start` has the split of cache writes by time to live, while their sum grows with each inference of a
    loop. Writes above the split are of its kind if it has only one; if it has none or both, they count as written for
    one hour, the dearer of the two: which the request asked for is not known here.
    """
    said = start if delta is None else start.then(delta)
    searches = (said.server_tool_use or ServerToolUse()).web_search_requests
    return counted(said, web_searches=searches or 0)


def counted(said: ReportedCounts, *, web_searches: int = 0) -> Usage:
    """The token counts of a report; what it does not say is 0."""
    writes, split = said.cache_creation_input_tokens, said.cache_creation or CacheCreation()
    five_minutes = split.ephemeral_5m_input_tokens
    one_hour = split.ephemeral_1h_input_tokens
    if writes is None:
        writes = five_minutes + one_hour
    if five_minutes and not one_hour:
        five_minutes = writes
    elif five_minutes + one_hour != writes:
        five_minutes = min(five_minutes, writes)
        one_hour = writes - five_minutes
    return Usage(
        input_tokens=said.input_tokens or 0,
        output_tokens=said.output_tokens or 0,
        cache_read_tokens=said.cache_read_input_tokens or 0,
        cache_write_5m_tokens=five_minutes,
        cache_write_1h_tokens=one_hour,
        thinking_tokens=(said.output_tokens_details or OutputDetails()).thinking_tokens or 0,
        web_searches=web_searches,
    )


PROMPT_OVERHEAD_TOKENS = 32
"""The most tokens that the provider adds to a plain-text prompt beyond its bytes: roles and framing."""
TURN_OVERHEAD_TOKENS = 16
"""The most tokens that each earlier turn of a conversation adds beyond its bytes."""
TOOLS_OVERHEAD_TOKENS = 804
"""The most that tools add to a prompt, once: a system prompt, which depends on model and `tool_choice` (documented)."""
_TOOL_OVERHEADS = {
    "custom": 0,
    "tool_reference": 0,
    "bash": 325,
    "text_editor": 700,
    "computer": 499 + 735,
    "computer_toolset": 5_000,
    "browser_toolset": 8_000,
}
"""The most that one tool adds beside its bytes, by its type without the date (documented; the toolsets rounded up)."""
_LARGEST_TOOL_OVERHEAD = max(_TOOL_OVERHEADS.values())
IMAGE_TOKENS = 4_784
"""The most tokens of an image, whatever its size and source: a larger one is scaled down (documented)."""
IMAGE_TOKENS_BEFORE_4_7 = 1_568
_VERSION = re.compile(r"-([0-9]{1,2})(?:-([0-9]{1,2}))?(?![0-9])")
_SHARPER_SINCE = (4, 7)
_DATE = re.compile(r"_[0-9]{8}$")


def image_tokens(model: str) -> int:
    """The most tokens of an image in a prompt for `model`; the larger bound if its name has no version."""
    version = _VERSION.search(model)
    if version is None or (int(version[1]), int(version[2] or 0)) >= _SHARPER_SINCE:
        return IMAGE_TOKENS
    return IMAGE_TOKENS_BEFORE_4_7


def tool_overhead(tool_type: str | None) -> int:
    """The most tokens that a tool of this type (`bash_20250124`; None: custom) adds to a prompt beside its bytes.

    A type that is not documented counts as the largest, so that the bound holds.
    """
    kind = "custom" if tool_type is None else _DATE.sub("", tool_type)
    return _TOOL_OVERHEADS.get(kind, _LARGEST_TOOL_OVERHEAD)


def bound_of_text(text_bytes: int, overhead_tokens: int) -> int:
    """The most tokens in a prompt of `text_bytes` UTF-8 bytes: a token is at least a byte."""
    return text_bytes + overhead_tokens


def likely_of_text(text_bytes: int, overhead_tokens: int) -> int:
    """The probable tokens in such a prompt; decides only whether an exact count is worth a call."""
    return text_bytes // 3 + overhead_tokens


def bound_of_count(counted_tokens: int) -> int:
    """The most tokens in a prompt that Anthropic's count-tokens call counted as `counted_tokens`.

    The documentation calls the count an estimate that "may differ by a small amount"; this allows two per cent and
    eight tokens. Tokens that the provider counts beyond that are recorded, charged and shown.
    """
    return counted_tokens + counted_tokens // 50 + 8


def estimate_output(characters: int) -> int:
    """Output tokens of `characters` of uncounted text: one per four characters, rounded up."""
    return ceil_div(characters, 4)
