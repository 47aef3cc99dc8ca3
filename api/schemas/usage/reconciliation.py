"""Shapes of reconciliation: its stored runs, and a run with repairs at the command line."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from billing.ledger.balances import Difference
from metering.reconciliation.drifts import Month, Reconciliation
from metering.reconciliation.provider_usage import Exposure

DRIFTED, NOT_CHECKED = 2, 3


class StoredRun(NamedTuple):
    """A stored run: its report, and the counts that its list shows."""

    ran_at: datetime | int
    report: dict[str, Any]
    counts: tuple[int, int]


class StoredRuns(NamedTuple):
    """The latest runs, newest first. Counts of usage are (tenants, drifts), of Razorpay (healed, unexplained)."""

    usage: list[StoredRun]
    razorpay: list[StoredRun]


@dataclass(frozen=True, slots=True)
class ReconcileRequest:
    """The checks and repairs to do. A repair of meters needs a `reason`, because bills are computed from them."""

    tenant: UUID | str | None = None
    since: Month | None = None
    repair: bool = False
    repair_meters: bool = False
    reason: str = ""


@dataclass(slots=True)
class ReconcileResult:
    """Everything that one run found and repaired."""

    found: Reconciliation
    left: Reconciliation | None = None
    repaired: dict[str, int] = field(default_factory=dict)
    exposure: list[Exposure] | None = None
    no_exposure: str | None = None
    ledger: list[Difference] = field(default_factory=list)
    spooled: int = 0
    poisoned: int = 0

    @property
    def exit_code(self) -> int:
        """0: no drift. 2: drifts, a ledger that differs, or poisoned settlements. 3: a check could not be done."""
        last = self.left or self.found
        if last.drifts or self.ledger or self.poisoned:
            return DRIFTED
        return 0 if self.found.whole and last.whole and self.no_exposure is None else NOT_CHECKED

    def as_json(self) -> dict[str, Any]:
        """The result as `--json` prints it."""
        provider = None if self.exposure is None else [row.as_json() for row in self.exposure]
        return {
            "found": self.found.as_json(),
            "mended": self.repaired,
            "left": self.left.as_json() if self.left else None,
            "ledger": [asdict(one) | {"tenant_id": str(one.tenant_id)} for one in self.ledger],
            "provider": provider,
            "provider_not_asked": self.no_exposure,
            "spool": {"waiting": self.spooled, "set_aside": self.poisoned},
            "exit_code": self.exit_code,
        }
