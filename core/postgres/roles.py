"""The Postgres roles that Naka's own connections act as. All are group roles without a login.

`naka migrate` makes them and grants them what `migrations.access` declares; docs/operating.md says who is a member.
"""

APPLICATION = "naka_app"
"""`naka serve`, `naka worker` and the command line: rows of every tenant, no DDL, no change to what is append-only."""
TENANT = "naka_tenant"
"""A transaction that serves one tenant. Row-level security shows it the rows of that tenant alone."""
READER = "naka_read"
"""Auditors and reporting tools: reads everything but secrets."""
ALL = (APPLICATION, TENANT, READER)

TENANT_SETTING = "naka.tenant"
"""The configuration parameter that names the tenant to the policies of `TENANT`; without it they raise."""
