"""The schema, as alembic's revisions. `naka migrate` brings a database to the newest one."""
