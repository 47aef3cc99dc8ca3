"""Budgets of tags and of short-lived tokens: a budget is a question to Postgres, not a counter of its own.

Never passed: the transaction that opens a request takes a lock of each of its budgets, and adds up what the budget's
requests used (`usage_by_tag`) and hold (open rows). Redis is not asked, so there is nothing to rebuild, and grants by
Redis and by Postgres check the same. Postgres down: `Unavailable`, as for every open.
"""
