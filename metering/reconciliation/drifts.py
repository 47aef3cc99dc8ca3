"""The result of a reconciliation: drifts, by check. Pure.

A *drift* is a total that differs from the sum of request rows and entries; normally there are none. A check that could
not be made (Redis down) is reported as such, not as a drift.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from core.clock import to_ms
from core.ids import uuid7_floor
from metering.counts import REPORTED_COLUMNS

ROLLUP, METERS, REDIS, OPEN = "rollup", "meters", "redis", "open"
DAILY, MONTHLY, BY_DAY, BY_TAG = "usage_daily", "usage_monthly", "usage_by_day", "usage_by_tag"
CHECKS = {
    ROLLUP: "the rollups are what rows and entries add up to",
    METERS: "the meters are what rows and entries add up to",
    REDIS: "the counters in Redis are what Postgres says",
    OPEN: "every request past its deadline is settled",
}
MOST_KEPT = 1000
"""The most drifts of one check that a report lists; all are counted."""

_SLACK = timedelta(days=2)  # time zones differ by less than a day; a changed zone moves days, too


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month of the operator, by its name `YYYY-MM`: the unit of comparison."""

    name: str

    @property
    def first(self) -> date:
        """Its first day."""
        return date.fromisoformat(f"{self.name}-01")

    def later(self, months: int) -> "Month":
        """The month that many months later, or earlier."""
        number = self.first.year * 12 + self.first.month - 1 + months
        return Month(f"{number // 12:04d}-{number % 12 + 1:02d}")

    def ids(self, months: int = 1) -> tuple[UUID, UUID]:
        """Generous bounds for the ids of requests of this month (and the next ones)."""
        return first_id(self.first - _SLACK), first_id(self.later(months).first + _SLACK)


@dataclass(frozen=True, slots=True)
class Drift:
    """A total that is `actual` and should be `expected`; both by the names of their counts."""

    check: str
    tenant_id: UUID
    subject: dict[str, str]
    expected: dict[str, int]
    actual: dict[str, int]

    @property
    def difference(self) -> dict[str, int]:
        """Actual minus expected; only counts that differ."""
        names = self.expected | self.actual
        by = {name: self.actual.get(name, 0) - self.expected.get(name, 0) for name in names}
        return {name: amount for name, amount in by.items() if amount}

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for two drifts of the same subject by the same amount."""
        return self.check, self.tenant_id, *self.subject.items(), *self.difference.items()

    @property
    def month(self) -> Month:
        """The month to repair, for a drift of a rollup or a meter."""
        return Month((self.subject.get("day") or self.subject["period"])[:7])


@dataclass(slots=True)
class Check:
    """One check and its first drifts. `not_done`: the reason why it was not made, or failed."""

    name: str
    drifts: list[Drift] = field(default_factory=list)
    found: int = 0
    places: set[tuple[UUID, Month | None]] = field(default_factory=set)
    not_done: str | None = None
    failed: bool = False

    def add(self, drifts: Iterable[Drift], found: int | None = None) -> None:
        """Adds the drifts of one place; `found`: their number, if more were found than are passed."""
        listed = list(drifts)
        self.found += len(listed) if found is None else found
        self.places |= {(drift.tenant_id, drift.month if self.name in (ROLLUP, METERS) else None) for drift in listed}
        self.drifts += listed[: MOST_KEPT - len(self.drifts)]


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Settled requests whose price the price list did not know whole: docs/prices.md. Not a drift."""

    tenant_id: UUID
    model: str
    requests: int
    cost_nano_usd: int


@dataclass(slots=True)
class Reconciliation:
    """One run: its scope and findings. Months before `since` were not compared."""

    id: UUID
    ran_at: datetime
    since: Month
    tenants: int = 0
    checks: dict[str, Check] = field(default_factory=lambda: {name: Check(name) for name in CHECKS})
    unpriced: list[Unpriced] = field(default_factory=list)

    @property
    def drifts(self) -> int:
        """The number of drifts of all checks."""
        return sum(check.found for check in self.checks.values())

    @property
    def whole(self) -> bool:
        """Whether no check failed."""
        return not any(check.failed for check in self.checks.values())

    def places(self, check: str) -> Sequence[tuple[UUID, Month | None]]:
        """The (tenant, month) pairs with drifts of a check, in order."""
        return sorted(self.checks[check].places, key=repr)

    def as_json(self) -> dict[str, Any]:
        """The report as it is stored and printed."""
        return {
            "id": str(self.id),
            "ran_at": self.ran_at.isoformat(),
            "since": self.since.name,
            "tenants": self.tenants,
            "drifts": self.drifts,
            "whole": self.whole,
            "checks": {check.name: _check_json(check) for check in self.checks.values()},
            "unpriced": [asdict(row) | {"tenant_id": str(row.tenant_id)} for row in self.unpriced],
        }


def counts(values: Iterable[int]) -> dict[str, int]:
    """The nine counts by name, and the errors if there are ten values."""
    return dict(zip(REPORTED_COLUMNS, values, strict=False))


def _check_json(check: Check) -> dict[str, Any]:
    return {
        "drifts": check.found,
        "not_done": check.not_done,
        "listed": [
            {
                "tenant_id": str(drift.tenant_id),
                "subject": drift.subject,
                "expected": drift.expected,
                "actual": drift.actual,
                "difference": drift.difference,
            }
            for drift in check.drifts
        ],
    }


def first_id(day: date) -> UUID:
    """The least id of a request of a UTC day."""
    return uuid7_floor(max(0, to_ms(datetime.fromisoformat(f"{day}T00:00:00+00:00"))))
