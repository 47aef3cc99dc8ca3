"""Billing's use cases: plans, profiles, subscriptions, bills, collection, findings, webhook events, alerts.

A tenant's admin reaches its own tenant only; another tenant's id answers like an unknown one. Postgres down:
Unavailable. Redis down: caches of other processes expire by themselves. Razorpay down: intents are stored and the
worker sends them later.
"""
