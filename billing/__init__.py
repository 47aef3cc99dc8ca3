"""What is owed, and what Razorpay says about it. Today: plans and the entitlement they give.

Owns the table `plans`. Billing tells metering what a tenant is entitled to (`metering.entitlements`); metering never
asks billing anything.
"""
