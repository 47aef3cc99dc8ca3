"""How the account's pages say things: meters, limits, alerts, and how the subscription stands. Pure.

For an admin who is no programmer: no identifier of ours is shown, and each state says what to do about it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.pages.site import number, usd
from billing.gst.rupees import rupees
from metering.quota.schedule import Stretch

_NANO_PER_MICRO = 1_000
_METERS = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cache_read_tokens": "tokens read from the cache",
    "cache_write_tokens": "tokens written to the cache",
    "cache_write_5m_tokens": "tokens written to the cache for 5 minutes",
    "cache_write_1h_tokens": "tokens written to the cache for an hour",
    "spend": "model cost",
    "charge": "charge past the allowances",
}
WINDOWS = {"minute": "minute", "day": "day", "period": "billing period"}
METHODS = {"upi": "UPI", "card": "Card", "emandate": "e-mandate"}
SCOPES = {
    "chat": ("Chat", "Send messages. All that your own product needs."),
    "usage:read": ("Read usage", "See what its own user has used, and what is left."),
    "tenant:admin": ("Administer the account", "Everything on these pages: keys, plan, bills. Give it to few."),
}
"""What a key may be given here: name and explanation."""


@dataclass(frozen=True, slots=True)
class State:
    """How something stands: a tag with its tone, and a sentence."""

    tag: str
    tone: str
    text: str
    action: tuple[str, str] | None = None
    """Where to go now, and what that link says."""


def meter(name: str) -> str:
    """What is counted, within a sentence."""
    return _METERS.get(name, name.replace("_", " "))


def amount(name: str, value: int) -> str:
    """So much of a meter, in its own unit: dollars of model cost, rupees of charge, or a count."""
    match name:
        case "spend":
            return usd(value * _NANO_PER_MICRO)
        case "charge":
            return rupees(value)
        case _:
            return number(value)


def bound(name: str, window: str, limit: int) -> str:
    """A limit: `60 requests a minute`."""
    if name == "charge":
        return f"{rupees(limit)} past the allowances, the plan's ceiling"
    return f"{amount(name, limit)} {'of ' if name == 'spend' else ''}{meter(name)} a {WINDOWS[window]}"


def rate(name: str, rate_paise: int) -> str:
    """A price past the allowance: a million tokens, or a dollar (a million micro-USD) of model cost."""
    return f"{rupees(rate_paise)} {'per dollar of model cost' if name == 'spend' else 'per million'}"


def alert(kind: str, data: Mapping[str, Any]) -> str:
    """What an alert says."""
    match kind:
        case "alerts.test":
            return "Test message"
        case "subscription.renewal_due":
            return "The subscription is in its last month: subscribe again to go on"
        case "usage.threshold_reached":
            return _threshold(data)
        case _:
            return kind.replace(".", ": ").replace("_", " ")


def _threshold(data: Mapping[str, Any]) -> str:
    name, limit = str(data["meter"]), int(data["limit"])
    match data["kind"]:
        case "allowance":
            what = f"the allowance of {amount(name, limit)} {meter(name)}"
        case "ceiling":
            what = f"the ceiling of {rupees(limit)} past the allowances"
        case _:
            whose = "the account's" if data.get("user_id") is None else "a user's"
            what = f"{whose} limit of {bound(name, str(data['window']), limit)}"
    return f"{data['level']} % used of {what}"


def no_answer(error: str | None) -> str:
    """Why an address did not answer."""
    match error:
        case "TimeoutError" | "ServerTimeoutError":
            return "no answer in time"
        case None:
            return "no answer"
        case _ if "Connector" in error or "Connect" in error:
            return "could not be reached"
        case _:
            return f"no answer ({error})"


def refuses_from(stretches: Sequence[Stretch], at_ms: int) -> int | None:
    """When requests will be refused, if nothing is done."""
    return next((one.from_ms for one in stretches if one.refusal is not None and one.from_ms > at_ms), None)
