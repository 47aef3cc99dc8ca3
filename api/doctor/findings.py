"""What the doctor says of a check, and the one that it looks at. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from core.settings import Settings

CHECK_S = 6
"""The longest that a check may take."""


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it says, and what mends it."""

    name: str
    verdict: Verdict
    says: str
    mend: str = ""


@dataclass(slots=True)
class Checkup:
    """A set-up: its settings, what answers of it, and what was found so far."""

    settings: Settings
    postgres: Any = None
    redis: Any = None
    has_schema: bool = False
    findings: list[Finding] = field(default_factory=list)

    def ok(self, name: str, says: str) -> None:
        """It is well."""
        self.findings.append(Finding(name, Verdict.OK, says))

    def warn(self, name: str, says: str, mend: str) -> None:
        """It works, and may not for long."""
        self.findings.append(Finding(name, Verdict.WARNING, says, mend))

    def fault(self, name: str, says: str, mend: str) -> None:
        """It does not work."""
        self.findings.append(Finding(name, Verdict.FAULT, says, mend))

    def judge(self, name: str, *, good: bool, says: str, otherwise: str, mend: str, is_fault: bool = True) -> None:
        """One or the other."""
        if good:
            self.ok(name, says)
        else:
            (self.fault if is_fault else self.warn)(name, otherwise, mend)
