"""The findings of a checkup. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from core.settings import Settings

CHECK_S = 6
"""Time limit of one check."""


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `mend`: how to fix it."""

    name: str
    verdict: Verdict
    says: str
    mend: str = ""


@dataclass(slots=True)
class Checkup:
    """An installation: its settings, its open connections, and the findings so far."""

    settings: Settings
    postgres: Any = None
    redis: Any = None
    has_schema: bool = False
    findings: list[Finding] = field(default_factory=list)

    def ok(self, name: str, says: str) -> None:
        """Adds a passed check."""
        self.findings.append(Finding(name, Verdict.OK, says))

    def warn(self, name: str, says: str, mend: str) -> None:
        """Adds a warning: it works, but may stop working."""
        self.findings.append(Finding(name, Verdict.WARNING, says, mend))

    def fault(self, name: str, says: str, mend: str) -> None:
        """Adds a fault: it does not work."""
        self.findings.append(Finding(name, Verdict.FAULT, says, mend))

    def judge(self, name: str, *, good: bool, says: str, otherwise: str, mend: str, is_fault: bool = True) -> None:
        """Adds a passed check when `good`, else a fault or a warning that says `otherwise`."""
        if good:
            self.ok(name, says)
        else:
            (self.fault if is_fault else self.warn)(name, otherwise, mend)
