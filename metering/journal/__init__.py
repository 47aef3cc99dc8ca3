"""The journal: one row per metered request, opened before the provider is called and settled once.

Invariant: the provider never receives a request that has no row, and the client never receives `done` before its usage
is committed here or on this host's spool. Postgres down: nothing opens (`Unavailable`), and settlements are spooled.
"""
