"""Commands for plans, profiles, subscriptions, bills, charges, refunds and webhooks."""
