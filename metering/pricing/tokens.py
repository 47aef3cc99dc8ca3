"""What a request used: the five token classes, disjoint, as Anthropic counts them. Pure.

They are never folded into one and never clamped. `message_start` carries every input class, and alone the split of
cache writes by time to live; `message_delta` is cumulative and overwrites what it names (facts: Anthropic's
Messages API, streaming).
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
        """All that went in: what decides a model's prompt band."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens

    @property
    def total_tokens(self) -> int:
        """All five classes: what a limit on `tokens` counts."""
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))


NO_USAGE = Usage()


Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
"""A count as it arrives. What is not one (negative, or beyond anything a price could multiply) breaks the stream."""


class CacheCreation(msgspec.Struct, frozen=True):
    """The split of cache writes; only `message_start` has it."""

    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0


class ReportedUsage(msgspec.Struct, frozen=True):
    """A `usage` object as it arrives; null and absent are the same: not said."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: CacheCreation | None = None

    def then(self, later: "ReportedUsage") -> "ReportedUsage":
        """This, overwritten by what a later report says: reports are cumulative."""
        return ReportedUsage(
            *(getattr(self if getattr(later, name) is None else later, name) for name in self.__struct_fields__)
        )


def overlay(start: ReportedUsage, delta: ReportedUsage | None) -> Usage:
    """The usage of a message: `message_start`'s, overwritten by what the last `message_delta` says.

    Without the split, or where the split does not add up to the flat count, what is left over counts as written for
    one hour: the dearer of the two, and we never ask for either.
    """
    later = delta or ReportedUsage()
    writes = _said(later.cache_creation_input_tokens, start.cache_creation_input_tokens)
    split = later.cache_creation or start.cache_creation or CacheCreation()
    five_minutes = split.ephemeral_5m_input_tokens
    one_hour = split.ephemeral_1h_input_tokens
    if writes is None:
        writes = five_minutes + one_hour
    if five_minutes + one_hour != writes:
        five_minutes = min(five_minutes, writes)
        one_hour = writes - five_minutes
    return Usage(
        input_tokens=_said(later.input_tokens, start.input_tokens) or 0,
        output_tokens=_said(later.output_tokens, start.output_tokens) or 0,
        cache_read_tokens=_said(later.cache_read_input_tokens, start.cache_read_input_tokens) or 0,
        cache_write_5m_tokens=five_minutes,
        cache_write_1h_tokens=one_hour,
    )


def _said(later: int | None, earlier: int | None) -> int | None:
    return earlier if later is None else later


def bound_of_text(text_bytes: int, overhead_tokens: int) -> int:
    """The most tokens that a prompt of `text_bytes` UTF-8 bytes can be: a token is at least a byte."""
    return text_bytes + overhead_tokens


def likely_of_text(text_bytes: int, overhead_tokens: int) -> int:
    """What such a prompt probably is; decides only whether asking for the exact count is worth a call."""
    return text_bytes // 3 + overhead_tokens


def bound_of_count(counted_tokens: int) -> int:
    """The most that a prompt can turn out to be which Anthropic's count-tokens call gave as `counted_tokens`.

    The documentation calls the count an estimate that "may differ by a small amount"; two per cent and eight tokens
    is the amount this project allows for. What the provider counts beyond it is recorded, charged and shown.
    """
    return counted_tokens + counted_tokens // 50 + 8


def estimate_output(characters: int) -> int:
    """Output tokens of `characters` of relayed text when nobody counted them: one for each four, rounded up."""
    return ceil_div(characters, 4)
