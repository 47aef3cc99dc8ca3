"""Admission: may this request start, and how many tokens may it use.

Redis grants by counters that Postgres can rebuild at any time; Postgres grants while Redis is unreachable, by its own
rows and the same rules. Invariant: two parallel requests never both take the last of a limit, since Postgres opens no
row of an older epoch. Postgres unreachable: nothing is admitted (`Unavailable`).
"""
