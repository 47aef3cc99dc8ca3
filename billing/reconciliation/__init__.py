"""Comparison of Razorpay's records with ours: repairs what a lost webhook left, and reports the rest.

Each difference is repaired by fetching that one entity through the same functions that webhooks use. One that a fetch
resolves is `healed`; one that stays is `unexplained` and recorded as a finding, which closes when it is resolved.
Entities of another product of the account are only counted, without a fetch. Lists are read page by page, a day at a
time, with at most `PARALLEL` calls at once, so memory doesn't grow with the account.

`report` (the result), `windows` (the days and which were compared), `subscriptions`, `charges`, `payments` and
`mandates` (one kind each), `comparison` (a run).
"""

from billing.reconciliation.comparison import WINDOW_DAYS, reconcile_razorpay
from billing.reconciliation.report import RazorpayReport

__all__ = ["WINDOW_DAYS", "RazorpayReport", "reconcile_razorpay"]
