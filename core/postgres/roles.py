"""The Postgres roles of Naka's connections: group roles without a login.

`naka migrate` creates them and grants the privileges of `migrations.access`; docs/operating.md lists the members.
"""

APPLICATION = "naka_app"
"""`naka serve`, `naka worker` and the command line: rows of every tenant, no DDL, no change to append-only tables."""
TENANT = "naka_tenant"
"""A transaction of one tenant; row-level security limits it to that tenant's rows."""
READER = "naka_read"
"""Auditors and reporting tools: may read everything but secrets."""
ALL = (APPLICATION, TENANT, READER)

TENANT_SETTING = "naka.tenant"
"""The configuration parameter that the policies of `TENANT` read the tenant from; unset, they raise."""
