"""What is owed, and what Razorpay says about it.

Rooms, from the lowest: `models`, `gst`, `rating`, `documents`, `razorpay`, then `context`, `access`, `catalogue`,
`payments`, `invoicing`, `collection`, `subscriptions`, `webhooks`, `alerts`. A room imports only those before it.
Billing projects what a tenant is entitled to (`metering.admission.entitlements`); metering never asks billing anything.
"""
