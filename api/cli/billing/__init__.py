"""Commands for plans, profiles, subscriptions, bills, charges, refunds, findings and webhook events."""
