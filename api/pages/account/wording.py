"""Words of the account's pages for an admin who is no programmer: meters, limits, money, alerts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.pages.banner import Way
from billing.standing.words import money
from core.figures import grouped, usd

_NANO_PER_MICRO = 1_000
_MILLION = 1_000_000
_METERS = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cache_read_tokens": "tokens read from the cache",
    "cache_write_tokens": "tokens written to the cache",
    "cache_write_5m_tokens": "tokens written to the cache for 5 minutes",
    "cache_write_1h_tokens": "tokens written to the cache for an hour",
    "web_searches": "web searches",
    "spend": "model cost",
    "charge": "overage",
}
_FEATURES = {
    "web_search": "web search",
    "web_fetch": "fetching web pages",
    "code_execution": "code execution",
    "tool_search": "tool search",
    "advisor": "advisor models",
    "mcp": "MCP servers",
    "url_sources": "images and documents by URL",
    "fallbacks": "fallback models",
    "compaction": "compaction of long conversations",
}
WINDOWS = {"minute": "minute", "day": "day", "period": "billing period"}
METHODS = {"upi": "UPI", "card": "Card", "emandate": "e-mandate"}
SCOPES = {
    "chat": ("Chat", "Send messages as its user."),
    "chat:as-user": ("Act for users", "Your product's backend: each request names the user it is for."),
    "usage:read": ("Read usage", "View its user's usage and remaining limits."),
    "tenant:read": ("Read the account's usage", "View the usage of every user, on the reports."),
    "tenant:admin": ("Full admin access", "Everything on these pages: keys, plan, bills."),
}
"""Name and explanation of each scope that can be granted here."""
_OTHER_SCOPES = {"tenant:members": "Manage members", "platform:admin": "Operate the platform"}


@dataclass(frozen=True, slots=True)
class State:
    """A status: a tag with its tone, and a sentence."""

    tag: str
    tone: str
    text: str
    way: Way | None = None
    """The next step."""


def scope(name: str) -> str:
    """The name of any scope."""
    return SCOPES[name][0] if name in SCOPES else _OTHER_SCOPES.get(name, name)


def meter(name: str) -> str:
    """A meter, within a sentence."""
    return _METERS.get(name, name.replace("_", " "))


def amount(name: str, value: int) -> str:
    """An amount of a meter in its unit: dollars of model cost, rupees of overage, or a count."""
    match name:
        case "spend":
            return usd(value * _NANO_PER_MICRO)
        case "charge":
            return money(value)
        case _:
            return grouped(value)


def allowance(name: str, value: int) -> str:
    """An allowance in a plan's offer: `3 million output tokens`."""
    millions, rest = divmod(value, _MILLION)
    tenths = rest * 10 // _MILLION
    exact = name != "spend" and millions and tenths * _MILLION == rest * 10
    how_many = f"{grouped(millions)}{f'.{tenths}' if tenths else ''} million" if exact else amount(name, value)
    return f"{how_many} {'of ' if name == 'spend' else ''}{meter(name)}"


def bound(name: str, window: str, limit: int) -> str:
    """A limit: `60 requests a minute`."""
    if name == "charge":
        return f"{money(limit)} of overage, the plan's ceiling"
    return f"{amount(name, limit)} {'of ' if name == 'spend' else ''}{meter(name)} a {WINDOWS[window]}"


def budget(window: str) -> str:
    """A limit of spend for a tenant that may not see the provider's cost."""
    return f"budget for model usage a {WINDOWS[window]}"


def feature(name: str) -> str:
    """A feature of the Messages API, within a sentence."""
    return _FEATURES.get(name, name.replace("_", " "))


def models(names: Sequence[str] | None) -> str:
    """The models of a plan: `All models`, or their names and prefixes."""
    return "All models" if names is None else ", ".join(names)


def rate(name: str, rate_paise: int) -> str:
    """The price of overage: per million tokens, or per dollar (a million micro-USD) of model cost."""
    return f"{money(rate_paise)} {'per dollar of model cost' if name == 'spend' else 'per million'}"


def alert(kind: str, data: Mapping[str, Any]) -> str:
    """The text of an alert."""
    match kind:
        case "alerts.test":
            return "Test message"
        case "subscription.renewal_due":
            return "The subscription is in its last month. Subscribe again to continue"
        case "usage.threshold_reached":
            return _threshold(data)
        case "wallet.balance_low":
            left, below = money(int(data["balance_paise"])), money(int(data["below_paise"]))
            return f"The balance of {left} is below {below}. Add money to continue"
        case "account.overdue" | "account.halted":
            return str(data["text"])
        case _:
            return kind.replace(".", ": ").replace("_", " ")


def _threshold(data: Mapping[str, Any]) -> str:
    name, limit = str(data["meter"]), int(data["limit"] or 0)
    match data["kind"]:
        case "allowance":
            what = f"the allowance of {amount(name, limit)} {meter(name)}"
        case "ceiling":
            what = f"the ceiling of {money(limit)} of overage"
        case _:
            whose, window = "the account's" if data.get("user_id") is None else "a user's", str(data["window"])
            is_hidden = name == "spend"  # a tenant may not see the provider's cost
            what = f"{whose} {budget(window) if is_hidden else f'limit of {bound(name, window, limit)}'}"
    return f"{data['level']} % used of {what}"


def no_answer(error: str | None) -> str:
    """The reason why an address did not answer."""
    match error:
        case "TimeoutError" | "ServerTimeoutError":
            return "no answer in time"
        case None:
            return "no answer"
        case _ if "Connector" in error or "Connect" in error:
            return "could not be reached"
        case _:
            return f"no answer ({error})"
