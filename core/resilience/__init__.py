"""Deadlines, outages, fair shares, rates and caches: what a process does when a store is slow, away or full."""
