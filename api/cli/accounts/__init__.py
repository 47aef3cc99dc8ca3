"""Commands for tenants, users, keys and their limits."""
