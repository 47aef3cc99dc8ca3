"""Deadlines, outages, back-off, fair shares, rates and caches: behaviour when a store is slow, down or overloaded."""
