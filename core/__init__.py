"""The foundation of every package: settings, Postgres, Redis, resilience, clock, ids, money, errors, logs, tenancy."""
