"""Labels and texts of the reports' pages. Pure."""

from collections.abc import Mapping

_NBSP = "\N{NO-BREAK SPACE}"
COLUMNS = (
    ("requests", "Requests"),
    ("errors", "Errors"),
    ("input_tokens", "Input"),
    ("output_tokens", "Output"),
    ("cache_read_tokens", "Cache read"),
    ("cache_write_5m_tokens", f"Cache write, 5{_NBSP}min"),
    ("cache_write_1h_tokens", f"Cache write, 1{_NBSP}h"),
    ("tokens", "All tokens"),
    ("thinking_tokens", "Thinking"),
    ("web_searches", "Web searches"),
    ("cost_nano_usd", "Provider cost"),
    ("rated_nano_paise", "Rated value"),
)
"""Columns of the table, from left to right."""
REQUEST_COUNTS = tuple(column for column in COLUMNS[2:11] if column[0] != "tokens")
"""Counts of a single request."""
CLASSES = ("Input", "Output", "Cache read", f"Cache write, 5{_NBSP}min", f"Cache write, 1{_NBSP}h")
FIELDS = {"tenant": "Tenant", "user_id": "User", "key_id": "Key", "model": "Model", "tag": "Tag"}
"""Labels of the filters of a page, by the view's field."""
GROUPS = {"day": "Day", "user": "User", "key": "Key", "model": "Model", "tenant": "Tenant"}
MEASURES = {
    "tokens": "Tokens",
    "requests": "Requests",
    "errors": "Errors",
    "cost_nano_usd": "Provider cost",
    "rated_nano_paise": "Rated value",
}

STATES = {"open": ("Running", ""), "settled": ("Settled", "good"), "void": ("Void", "")}
OUTCOMES = {
    "completed": ("Completed", "good", "The answer is complete."),
    "refused": ("Refused by the model", "warn", "The model declined to answer. No tokens are counted."),
    "not_sent": ("Not sent", "bad", "The request never reached the provider. No tokens are counted."),
    "upstream_refused": ("Failed", "bad", "The provider sent an error, or nothing at all, before the answer began."),
    "upstream_broke": ("Interrupted", "bad", "The provider stopped midway. The part that was sent is counted."),
    "client_gone": ("Client disconnected", "", "The client left before the end. The part that was sent is counted."),
    "deadline": ("Timed out", "bad", "The request reached its deadline. The part that was sent is counted."),
    "shutdown": ("Ended by a restart", "bad", "This service restarted midway. The part that was sent is counted."),
    "lost": ("Lost", "bad", "The process that ran the request died. The usage of its last heartbeat is counted."),
}
SOURCES = {
    "final": "exact: the provider's final count",
    "counted": "counted by the provider from the relayed text",
    "estimated": "estimated from the length of the relayed text, or of a prompt that was not answered",
}
ENTRIES = {
    "revision": "A better count was found",
    "correction": "Corrected by an admin",
    "credit": "Credited by an admin",
    "repair": "A total was repaired",
    "iteration": "Used by another model for this request",
}
REFUSALS = {
    "limit_reached": "A limit was reached",
    "held": "Running requests held the rest of a limit",
    "too_many_at_once": "Too many requests at once",
    "blocked": "Requests are blocked",
    "input_exceeds_limit": "Larger than a limit allows",
    "payment_required": "The subscription's fee was not paid",
    "bill_overdue": "A bill was overdue",
    "subscription_required": "No subscription",
    "wallet_empty": "The wallet did not cover the request",
    "forbidden": "Not allowed for this key",
    "model_not_in_plan": "The model is not in the plan",
    "feature_not_in_plan": "The feature is not in the plan",
    "unauthenticated": "The key was revoked or had expired",
    "unknown_model": "Unknown model",
    "too_many_failures": "Too many failed requests",
    "rate_limited": "Too many requests in a minute",
    "unavailable": "This service was not available",
    "overloaded": "This service was busy",
}
"""The reasons for refusals, by the error's code."""
TABS = (("/reports", "Usage"), ("/reports/requests", "Requests"), ("/reports/live", "Live"))
LIVE = (
    ("running", "Running now", "requests"),
    ("admitted", "Started", "in the last minute"),
    ("settled", "Ended", "in the last minute"),
    ("errors", "Errors", "in the last minute"),
    ("tokens", "Tokens", "in the last minute"),
    ("cost_nano_usd", "Provider cost", "in the last minute"),
)
"""(name, label, period)."""


def refusals(counted: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Refused requests as (reason, code, number), the most frequent first."""
    most_first = sorted(counted.items(), key=lambda one: (-one[1], one[0]))
    return [(REFUSALS.get(code, code.replace("_", " ").capitalize()), code, number) for code, number in most_first]


def narrowed(names: dict[str, str]) -> list[tuple[str, str, str]]:
    """The filters of a page, each as (label, name, the view's field)."""
    return [(FIELDS[field], name, field) for field, name in names.items()]
