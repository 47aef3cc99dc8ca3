"""Admission: may this request start, and how many tokens may it use.

Redis grants by counters that Postgres can rebuild at any time; Postgres grants while Redis is unreachable, by its own
rows and the same rules. Two parallel requests can never both take the last of a limit. Postgres down: nothing is
admitted (`Unavailable`).
"""
