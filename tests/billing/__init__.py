"""Plans, taxes, invoices, subscriptions."""
