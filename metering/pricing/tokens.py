"""Token usage of a request: the five classes, disjoint, as Anthropic counts them. Pure.

Classes are never summed into one and never clamped. `message_start` has every input class, and is the only event with
the split of cache writes by time to live; `message_delta` is cumulative and overwrites the fields it has (source:
Anthropic's Messages API, streaming).
"""

from dataclasses import dataclass, fields
from typing import Annotated

import msgspec

from core.money import ceil_div


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request; the classes are disjoint, `output_tokens` includes thinking."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All input classes; decides a model's price band."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))


NO_USAGE = Usage()


Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
"""A received count. A negative one, or one too large to price exactly, breaks the stream."""


class CacheCreation(msgspec.Struct, frozen=True):
    """The split of cache writes by time to live; only `message_start` has it."""

    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0


class ReportedUsage(msgspec.Struct, frozen=True):
    """A received `usage` object; null means the same as absent."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: CacheCreation | None = None

    def then(self, later: "ReportedUsage") -> "ReportedUsage":
        """This report, overwritten by the fields of a later one: reports are cumulative."""
        return ReportedUsage(
            *(getattr(self if getattr(later, name) is None else later, name) for name in self.__struct_fields__)
        )


def overlay(start: ReportedUsage, delta: ReportedUsage | None) -> Usage:
    """The usage of a message: `message_start`, overwritten by the fields of the last `message_delta`.

    Cache writes that the split does not cover count as written for one hour: the dearer of the two, and this gateway
    asks for neither.
    """
    said = start if delta is None else start.then(delta)
    writes, split = said.cache_creation_input_tokens, said.cache_creation or CacheCreation()
    five_minutes = split.ephemeral_5m_input_tokens
    one_hour = split.ephemeral_1h_input_tokens
    if writes is None:
        writes = five_minutes + one_hour
    if five_minutes + one_hour != writes:
        five_minutes = min(five_minutes, writes)
        one_hour = writes - five_minutes
    return Usage(
        input_tokens=said.input_tokens or 0,
        output_tokens=said.output_tokens or 0,
        cache_read_tokens=said.cache_read_input_tokens or 0,
        cache_write_5m_tokens=five_minutes,
        cache_write_1h_tokens=one_hour,
    )


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
