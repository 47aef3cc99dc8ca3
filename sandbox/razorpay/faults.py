"""Ordered faults, of answers or of webhooks.

A fault applies to the calls it names (`POST /v1/subscriptions`, `GET *`, `*`; for webhooks an event's name) a number of
times, after a number of calls it lets pass, and is counted. An unknown field or kind is refused, so that typos in tests
are noticed.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

Kind = Literal["error", "html", "throttle", "slow", "cut", "lag"]
WebhookKind = Literal["duplicate", "delay", "drop", "old_secret", "reorder", "tamper"]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=10_000_000)]
Times = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A fault of answers. `when`: before the effect or after it was committed.

    `error` is JSON with `status` (500), `html` a page (502), `throttle` 429, `slow` waits `delay_s`, `cut` closes the
    socket without an answer, `lag` hides from lists what is younger than `delay_s` of the simulator's seconds.
    """

    route: str
    kind: Kind
    when: Literal["before", "after"] = "before"
    times: Times | None = 1
    """None: until it is removed."""
    skip: Times = 0
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    code: str = "SERVER_ERROR"
    description: str = "We are facing some trouble completing your request at the moment."
    delay_s: Seconds = 0
    struck: int = 0


class WebhookFault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A fault of webhooks, for whole events.

    `duplicate` sends `copies` more after the first success, `delay` waits `delay_s` of the simulator's seconds,
    `drop` never sends, `old_secret` signs with the secret before this one, `reorder` lets the next event overtake,
    `tamper` changes the body after it was signed.
    """

    event: str
    kind: WebhookKind
    times: Times | None = 1
    skip: Times = 0
    copies: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    delay_s: Seconds = 60
    struck: int = 0


class Faults:
    """The ordered faults."""

    def __init__(self) -> None:
        """Starts without faults."""
        self.answers: list[Fault] = []
        self.webhooks: list[WebhookFault] = []

    def on_answer(self, route: str) -> list[Fault]:
        """The faults for this call, which uses them up."""
        return [each for each in self.answers if each.kind != "lag" and _strikes(each, route, each.route)]

    def on_webhook(self, event: str) -> list[WebhookFault]:
        """The faults for this event."""
        return [each for each in self.webhooks if _strikes(each, event, each.event)]

    def lag_s(self, route: str) -> float:
        """The lag of this list in seconds."""
        lags = [e.delay_s for e in self.answers if e.kind == "lag" and _strikes(e, route, e.route)]
        return max(lags, default=0)

    def clear(self) -> None:
        """Removes all faults."""
        self.answers.clear()
        self.webhooks.clear()


def _strikes(fault: Fault | WebhookFault, name: str, pattern: str) -> bool:
    """Whether a fault applies now; counts it."""
    if not fnmatchcase(name, pattern):
        return False
    if fault.skip > 0:
        fault.skip -= 1
        return False
    if fault.times is not None:
        if fault.times == 0:
            return False
        fault.times -= 1
    fault.struck += 1
    return True
