"""The result of a comparison, filled while it runs, so that a run which fails still says how far it came."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

PARALLEL = 4
"""Calls at once. Half of the client's threads stay free for the other duties."""

Item = TypeVar("Item")


@dataclass(slots=True)
class RazorpayReport:
    """The result of one comparison. Amounts are paise, of our payments in the window."""

    healed: list[dict[str, Any]] = field(default_factory=list)
    unexplained: list[dict[str, Any]] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    foreign: int = 0
    collected_paise: int = 0
    refunded_paise: int = 0
    days: int = 0
    """Days to compare."""
    days_compared: int = 0
    stopped: str | None = None
    """Why the run ended early; None if it is complete."""
    open_findings: set[str] = field(default_factory=set)
    """Keys of unexplained differences of earlier runs."""
    to_report: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The findings to record: their details by key."""
    resolved: set[str] = field(default_factory=set)
    """The ones that are explained by now."""

    @property
    def is_clean(self) -> bool:
        """Whether everything was compared and no difference is left."""
        return not self.unexplained and self.stopped is None

    @property
    def progress(self) -> str:
        """The days compared, in words."""
        return f"{self.days_compared} of {self.days} days compared"

    def count(self, kind: str, number: int = 1) -> None:
        """Counts compared entities."""
        self.compared[kind] = self.compared.get(kind, 0) + number

    def heal(self, kind: str, key: str, what: str) -> None:
        """Notes a difference that a fetch resolved."""
        self.healed.append({"kind": kind, "id": key, "what": what})

    def explain(self, kind: str, key: str) -> None:
        """Notes that this entity agrees with ours, whatever an earlier run found."""
        if (finding := finding_key(kind, key)) in self.open_findings:
            self.resolved.add(finding)

    def leave(self, kind: str, key: str, what: str, *, is_reported: bool = False) -> None:
        """Notes a difference that stays; one that `is_reported` has a finding of another kind already."""
        self.unexplained.append({"kind": kind, "id": key, "what": what})
        if not is_reported:
            self.to_report[finding_key(kind, key)] = {"id": key, "subject": kind, "what": what}

    def as_json(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "healed": self.healed,
            "unexplained": self.unexplained,
            "compared": self.compared,
            "foreign": self.foreign,
            "collected_paise": self.collected_paise,
            "refunded_paise": self.refunded_paise,
            "days": self.days,
            "days_compared": self.days_compared,
            "stopped": self.stopped,
        }


def finding_key(kind: str, key: str) -> str:
    """The key of an unexplained difference's finding."""
    return f"unexplained:{kind}:{key}"


async def for_each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
    """Does `work` on every item, `PARALLEL` at a time. The first failure ends the others and is raised."""
    waiting = iter(items)

    async def take() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(PARALLEL):
                group.create_task(take())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
