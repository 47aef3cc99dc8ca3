"""Reading usage: requests, sums by groups, the current minute, and gauges for Prometheus.

Sums come from rollups, never from request rows; nothing here is on the path of a request. Postgres down: `Unavailable`.
"""
