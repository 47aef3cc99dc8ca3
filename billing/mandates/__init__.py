"""Mandates: a tenant authorises debits once, at a registration link of Razorpay's, and its bills are debited.

A registration is an intent, then Razorpay's link, then a token. Only fetches change a mandate's state. Razorpay down:
raises RazorpayError, and the duty MANDATES continues; Postgres down: Unavailable.
"""
