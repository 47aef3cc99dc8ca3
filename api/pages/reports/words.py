"""What the reports' pages call things, for a person who is no programmer. Pure."""

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
    ("cost_nano_usd", "Provider cost"),
    ("price_nano_paise", "Price"),
)
"""The table's figures, from left to right."""
REQUEST_COUNTS = tuple(column for column in COLUMNS[2:9] if column[0] != "tokens")
"""What a single request counts for."""
CLASSES = ("Input", "Output", "Cache read", f"Cache write, 5{_NBSP}min", f"Cache write, 1{_NBSP}h")
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
    "completed": ("Completed", "good", "It was answered to the end."),
    "refused": ("Refused by the model", "warn", "The model declined to answer and wrote nothing; no tokens count."),
    "not_sent": ("Not sent", "bad", "The provider never heard of it; no tokens count."),
    "upstream_refused": ("Failed", "bad", "The provider answered with an error, or not at all, before the first word."),
    "upstream_broke": ("Broke off", "bad", "The provider broke off in the middle; what was relayed is counted."),
    "client_gone": ("Reader left", "", "Whoever asked left before the end; what was relayed is counted."),
    "deadline": ("Took too long", "bad", "It was ended at its deadline; what was relayed is counted."),
    "shutdown": ("Ended by a restart", "bad", "This service stopped in the middle; what was relayed is counted."),
    "lost": ("Lost", "bad", "The process that ran it died; it is counted from its last sign of life."),
}
SOURCES = {
    "final": "exact: the final count of the provider",
    "counted": "counted by the provider from the text that was relayed",
    "estimated": "estimated from the length of the text that was relayed, or from a prompt that was not answered",
}
ENTRIES = {
    "revision": "A better count was found",
    "correction": "Corrected by an admin",
    "credit": "Credited by an admin",
    "repair": "A total was repaired",
}
TABS = (("/reports", "Usage"), ("/reports/requests", "Requests"), ("/reports/live", "Live"))
LIVE = (
    ("running", "Running now", "requests"),
    ("admitted", "Begun", "in the last minute"),
    ("settled", "Ended", "in the last minute"),
    ("errors", "Errors", "in the last minute"),
    ("tokens", "Tokens", "in the last minute"),
    ("cost_nano_usd", "Provider cost", "in the last minute"),
)
"""(name, label, of what time)."""
