"""What every part stands on: settings, database, Redis, clock, ids, money, errors, logs and tenancy."""
