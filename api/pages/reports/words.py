"""Labels and texts of the reports' pages. Pure."""

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
    ("price_nano_paise", "Price"),
)
"""Columns of the table, from left to right."""
REQUEST_COUNTS = tuple(column for column in COLUMNS[2:11] if column[0] != "tokens")
"""Counts of a single request."""
CLASSES = ("Input", "Output", "Cache read", f"Cache write, 5{_NBSP}min", f"Cache write, 1{_NBSP}h")
FIELDS = {"tenant": "Tenant", "user_id": "User", "key_id": "Key", "model": "Model"}
"""Labels of the filters of a page, by the view's field."""
GROUPS = {"day": "Day", "user": "User", "key": "Key", "model": "Model", "tenant": "Tenant"}
MEASURES = {
    "tokens": "Tokens",
    "requests": "Requests",
    "errors": "Errors",
    "cost_nano_usd": "Provider cost",
    "price_nano_paise": "Price",
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


def narrowed(names: dict[str, str]) -> list[tuple[str, str, str]]:
    """The filters of a page, each as (label, name, the view's field)."""
    return [(FIELDS[field], name, field) for field, name in names.items()]
