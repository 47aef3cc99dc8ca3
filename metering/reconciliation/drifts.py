"""What a run over the books finds: drifts, by check. Pure.

A *drift* is a number that is not what the request rows and entries add up to; none is the normal answer. What cannot
be compared (Redis away) is no drift, and is said.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from core.clock import to_ms
from core.ids import uuid7_floor
from metering.models import REPORTED_COLUMNS

ROLLUP, METERS, REDIS, OPEN = "rollup", "meters", "redis", "open"
DAILY, MONTHLY, BY_DAY = "usage_daily", "usage_monthly", "usage_by_day"
CHECKS = {
    ROLLUP: "the rollups are what rows and entries add up to",
    METERS: "the meters are what rows and entries add up to",
    REDIS: "the counters in Redis are what Postgres says",
    OPEN: "every request past its deadline is settled",
}
MOST_KEPT = 1000
"""Drifts of one check that a report lists; those beyond are counted."""

_SLACK = timedelta(days=2)  # zones are less than a day apart; a zone that was changed moves days, too


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month of the operator, by its name `YYYY-MM`: what is compared at a time."""

    name: str

    @property
    def first(self) -> date:
        """Its first day."""
        return date.fromisoformat(f"{self.name}-01")

    def later(self, months: int) -> "Month":
        """So many months on, or back."""
        number = self.first.year * 12 + self.first.month - 1 + months
        return Month(f"{number // 12:04d}-{number % 12 + 1:02d}")

    def ids(self, months: int = 1) -> tuple[UUID, UUID]:
        """Bounds, with room to spare, for the ids of requests of this month (and the next ones)."""
        return _id_of(self.first - _SLACK), _id_of(self.later(months).first + _SLACK)


@dataclass(frozen=True, slots=True)
class Drift:
    """Where the books say `actual`, and should say `expected`; both by the names of what is counted."""

    check: str
    tenant_id: UUID
    subject: dict[str, str]
    expected: dict[str, int]
    actual: dict[str, int]

    @property
    def difference(self) -> dict[str, int]:
        """What is too much (or, negative, missing); only what differs."""
        names = self.expected | self.actual
        by = {name: self.actual.get(name, 0) - self.expected.get(name, 0) for name in names}
        return {name: amount for name, amount in by.items() if amount}

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal when the same thing is off by the same amount."""
        return self.check, self.tenant_id, *self.subject.items(), *self.difference.items()

    @property
    def month(self) -> Month:
        """The month to mend; of a drift of the rollup or a meter."""
        return Month((self.subject.get("day") or self.subject["period"])[:7])


@dataclass(slots=True)
class Check:
    """One check: its drifts, the first of them listed. `not_done` says why it could not be made, or was not."""

    name: str
    drifts: list[Drift] = field(default_factory=list)
    found: int = 0
    places: set[tuple[UUID, Month | None]] = field(default_factory=set)
    not_done: str | None = None
    failed: bool = False

    def add(self, drifts: Iterable[Drift], found: int | None = None) -> None:
        """Drifts of one place; `found` when more were found than come along."""
        listed = list(drifts)
        self.found += len(listed) if found is None else found
        self.places |= {(drift.tenant_id, drift.month if self.name in (ROLLUP, METERS) else None) for drift in listed}
        self.drifts += listed[: MOST_KEPT - len(self.drifts)]


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Settled requests whose model the price list did not know: priced as what was asked for. Not a drift."""

    tenant_id: UUID
    model: str
    requests: int
    cost_nano_usd: int


@dataclass(slots=True)
class Reconciliation:
    """One run: what was looked at and what was found. Months before `since` were not."""

    id: UUID
    ran_at: datetime
    since: Month
    tenants: int = 0
    checks: dict[str, Check] = field(default_factory=lambda: {name: Check(name) for name in CHECKS})
    unpriced: list[Unpriced] = field(default_factory=list)

    @property
    def drifts(self) -> int:
        """All that were found."""
        return sum(check.found for check in self.checks.values())

    @property
    def whole(self) -> bool:
        """Whether every check that was wanted could be made."""
        return not any(check.failed for check in self.checks.values())

    def places(self, check: str) -> Sequence[tuple[UUID, Month | None]]:
        """(tenant, month) where a check found something, in order."""
        return sorted(self.checks[check].places, key=repr)

    def as_json(self) -> dict[str, Any]:
        """The report, as it is stored and printed."""
        return {
            "id": str(self.id),
            "ran_at": self.ran_at.isoformat(),
            "since": self.since.name,
            "tenants": self.tenants,
            "drifts": self.drifts,
            "whole": self.whole,
            "checks": {check.name: _check_json(check) for check in self.checks.values()},
            "unpriced": [
                {
                    "tenant_id": str(row.tenant_id),
                    "model": row.model,
                    "requests": row.requests,
                    "cost_nano_usd": row.cost_nano_usd,
                }
                for row in self.unpriced
            ],
        }


def counts(values: Iterable[int]) -> dict[str, int]:
    """The seven counts by name; and the errors, if they come along."""
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


def _id_of(day: date) -> UUID:
    return uuid7_floor(max(0, to_ms(datetime.fromisoformat(f"{day}T00:00:00+00:00"))))
