"""Services for tenants, users, keys, limits, the audit log and personal data."""
