"""Money that moved: payments, refunds and disputes as Razorpay reports them.

A refund is sent under an idempotency key, once per cause. Razorpay down: the worker tries again.
"""
