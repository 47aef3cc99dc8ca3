"""The nine counts of usage: their names, and the type that adds and subtracts them. Pure.

Tables, statements (`metering.sql`), records and reports take the names and their order from here.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Protocol


class NamedRow(Protocol):
    """A row whose columns are read by name: asyncpg's, or a mapping of SQLAlchemy's."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class UsageCounts:
    """The nine counts, or a signed difference of them.

    The five token classes are disjoint. `thinking_tokens` are part of `output_tokens`: shown, and never added to them.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0
    cost_nano_usd: int = 0

    @classmethod
    def of(cls, row: NamedRow) -> "UsageCounts":
        """The counts of a row that has a column for each."""
        return cls(*map(int, counts_in(row)))

    @property
    def values(self) -> tuple[int, ...]:
        """The nine numbers in their order."""
        return _values_of(self)

    @property
    def usage(self) -> tuple[int, ...]:
        """Everything but the requests and the cost: the fields of `metering.pricing.tokens.Usage`."""
        return self.values[1:-1]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The five token classes in their order."""
        return self.values[1:6]

    def __add__(self, other: "UsageCounts") -> "UsageCounts":
        return UsageCounts(*(mine + theirs for mine, theirs in zip(self.values, other.values, strict=True)))

    def __sub__(self, other: "UsageCounts") -> "UsageCounts":
        return self + -other

    def __neg__(self) -> "UsageCounts":
        return UsageCounts(*(-value for value in self.values))


COUNT_COLUMNS = tuple(field.name for field in fields(UsageCounts))
_values_of: Callable[[UsageCounts], tuple[int, ...]] = attrgetter(*COUNT_COLUMNS)
TOKEN_COLUMNS = COUNT_COLUMNS[1:6]
"""The disjoint classes, which add up to the tokens of a request."""
USAGE_COLUMNS = COUNT_COLUMNS[1:-1]
LATER_COLUMNS = ("thinking_tokens", "web_searches")
"""Counts that a CSV file has in its last columns, so that readers by position find the older ones where they were."""
REPORTED_COLUMNS = (*COUNT_COLUMNS, "errors")
"""The counts of the rollups, which also count errors (`metering.journal.records.ERRORS`)."""


def counts_in(row: NamedRow) -> tuple[Any, ...]:
    """The nine numbers of a row that has a column for each, in their order."""
    return tuple(row[name] for name in COUNT_COLUMNS)
