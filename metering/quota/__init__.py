"""Quota rules without I/O: windows, limits, entitlement schedule, counters, the query and its decision.

The decision exists twice, here for Postgres and in `admit.lua` for Redis; a model test holds them equal.
"""
