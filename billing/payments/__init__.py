"""Payments, refunds and disputes as Razorpay reports them. A refund is sent once per cause."""
