"""The status of a tenant's money, computed once and shown alike by pages, API, chat, command line and alerts.

It follows from billing's rows and from the projected entitlement, so it can't contradict admission. Postgres down:
Unavailable. `refresh` alone calls Razorpay and writes; the rest reads.
"""
