"""Subscriptions: what the tenant intends, pushing it to Razorpay, and syncing what Razorpay has.

Intents are stored first. Razorpay down: they wait, and the worker pushes them again.
"""
