"""Subscriptions: tenants' intents, pushing them to Razorpay until it answers, and syncing its state."""
