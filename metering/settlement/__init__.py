"""Settlement: the usage of an ended request, once, into Postgres first and then into the counters of Redis.

Postgres down: the settlement is spooled on disk. Redis down: its counters are rebuilt from Postgres later.
"""
