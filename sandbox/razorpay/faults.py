"""What was ordered to go wrong: in an answer, or with a webhook.

The rule it keeps: a fault strikes the calls it names (`POST /v1/subscriptions`, `GET *`, `*`; for webhooks an event's
name) so many times, after so many it lets pass, and is counted. An unknown field or kind is refused, so that a test's
typo is noticed.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

Kind = Literal["error", "html", "throttle", "slow", "cut", "lag"]
WebhookKind = Literal["duplicate", "delay", "drop", "old_secret", "reorder", "tamper"]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=10_000_000)]
Times = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Trouble with answers. `when`: before the effect or after it was committed.

    `error` is JSON with `status` (500), `html` a page (502), `throttle` 429, `slow` waits `delay_s`, `cut` closes the
    socket without an answer, `lag` hides from lists what is younger than `delay_s` of the simulator's seconds.
    """

    route: str
    kind: Kind
    when: Literal["before", "after"] = "before"
    times: Times | None = 1
    """None: until it is taken away."""
    skip: Times = 0
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    code: str = "SERVER_ERROR"
    description: str = "We are facing some trouble completing your request at the moment."
    delay_s: Seconds = 0
    struck: int = 0


class WebhookFault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Trouble with webhooks: each order holds for whole events.

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
    """What is ordered at present."""

    def __init__(self) -> None:
        """Begins without."""
        self.answers: list[Fault] = []
        self.webhooks: list[WebhookFault] = []

    def on_answer(self, route: str) -> list[Fault]:
        """The faults that strike this call; they are used up by it."""
        return [each for each in self.answers if each.kind != "lag" and _strikes(each, route, each.route)]

    def on_webhook(self, event: str) -> list[WebhookFault]:
        """The faults that strike this event."""
        return [each for each in self.webhooks if _strikes(each, event, each.event)]

    def lag_s(self, route: str) -> float:
        """How far behind this list is."""
        lags = [e.delay_s for e in self.answers if e.kind == "lag" and _strikes(e, route, e.route)]
        return max(lags, default=0)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self.answers.clear()
        self.webhooks.clear()


def _strikes(fault: Fault | WebhookFault, name: str, pattern: str) -> bool:
    """Whether a fault strikes now; counts it."""
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
