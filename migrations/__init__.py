"""The schema, as alembic revisions. `naka migrate` upgrades a database to the newest one."""
