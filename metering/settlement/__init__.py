"""Settlement: the usage of an ended request, into Postgres first and then into the counters of Redis.

Each request is settled exactly once, by the process that ran it or, when its heartbeat stopped, by another. Postgres
down: the settlement is spooled on disk. Redis down: its counters are rebuilt from Postgres later.
"""
