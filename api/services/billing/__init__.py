"""Services for plans, profiles, subscriptions, bills, charges, refunds, findings, alerts and Razorpay's events."""
