"""Alerts: thresholds of allowances, limits and ceilings, delivered to the tenant's endpoint by signed webhooks.

An alert is stored once. A tenant's URL may lead only to a public address. Endpoint down: retried, every attempt logged.
"""
