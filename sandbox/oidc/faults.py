"""Faults that a test orders of an endpoint."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Fault:
    """What goes wrong at the next `times` calls of `endpoint` (discovery, keys, token, userinfo).

    `status` answers that status without a body that fits, `delay_s` waits before, `location` redirects there, `bytes`
    sends that many. For the token: `alg` signs as `SigningKeys.sign` says, `claims` replace those of the ID token (None
    leaves one out).
    """

    endpoint: str
    times: int = 1
    status: int = 0
    delay_s: float = 0
    location: str = ""
    bytes: int = 0
    alg: str = ""
    claims: dict[str, Any] = field(default_factory=dict)


class Faults:
    """The ordered faults."""

    def __init__(self) -> None:
        self.ordered: list[Fault] = []

    def next(self, endpoint: str) -> Fault | None:
        """The next fault of the endpoint, if any, counted."""
        for fault in self.ordered:
            if fault.endpoint == endpoint and fault.times > 0:
                fault.times -= 1
                return fault
        return None
