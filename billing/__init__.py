"""Billing: plans, subscriptions, bills and their collection through Razorpay.

Lowest first: `models`, `gst`, `rating`, `documents`, `razorpay`, `context`; `account`, `findings` and `writes`;
`access`, `catalogue`, `payments`, `invoicing`, `collection`, `subscriptions`, `webhooks`; `alerts` and
`reconciliation`. Each imports only lower ones. Billing derives tenants' entitlements and stores them by
`metering.admission.entitlements`; metering never calls billing.
"""
