"""Alerts at levels of allowances, limits and ceilings, delivered to the tenant's endpoint by signed webhooks."""
