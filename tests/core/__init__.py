"""Settings, tenancy, keys."""
