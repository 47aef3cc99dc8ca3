"""Who a request acts for when it has no key of its own: end users by name, short-lived tokens, JWTs, members.

A key acts for each of them (`api_keys`), so a revoked key ends all of them on every process at once: Postgres checks
the key and the user when it opens a metered request. Postgres down: `Unavailable`.
"""
