"""Shapes for plans, profiles, subscriptions, bills, charges, refunds, findings, alerts and events."""
