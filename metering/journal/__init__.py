"""The journal: one row per metered request, opened before the provider is called and settled once.

Invariant: the provider never hears of a request that has no row, and the client never receives `done` before its usage
is committed here or on this host's spool. Postgres down: nothing opens (`Unavailable`), settlements are spooled with
fsync and replayed. Writes go through group commits, so a busy process makes few transactions.
"""
