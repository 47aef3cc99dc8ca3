"""The privileges of the application's roles on every table, and the policies that confine a tenant's transactions.

`naka migrate` applies this declaration after the revisions, and `naka doctor` compares it with the database. What is
not declared is granted to no role. A declared table with a `tenant_id` gets row-level security.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from core.postgres.roles import APPLICATION, READER, TENANT, TENANT_SETTING

READ = "SELECT"
APPEND = "SELECT, INSERT"
EDIT = "SELECT, INSERT, UPDATE"
KEEP = "SELECT, INSERT, UPDATE, DELETE"


@dataclass(frozen=True, slots=True)
class Access:
    """The grants on one table: to the application, and to a tenant's transaction. No reader sees the `secret` columns.

    `tenant_check`: a further condition on the rows that a tenant's transaction writes.
    """

    app: str
    tenant: str = ""
    secret: tuple[str, ...] = ()
    tenant_check: str = ""


_LOCK_ONLY = "UPDATE (created_at)"
"""Locking a row (FOR UPDATE) needs the privilege to update one of its columns. Rows of these tables never change."""
_BILL_CHANGES = (
    "UPDATE (state, number, reason, credited_paise, paid_paise, carried_paise, written_off_paise, razorpay_invoice_id,"
    " issued_ms, due_ms, paid_ms, taken)"
)
"""A bill's lines, amounts, tax and parties never change; voiding a held bill clears `taken`.

A trigger keeps number and dates of a numbered one, too.
"""
_SESSIONS_OF_A_TENANT = "SELECT (tenant_id, id, key_id, created_at, expires_at, ended_at), UPDATE (ended_at)"
"""For the export and the erasure of a user (core.tenancy.erasure)."""
_EVENT_CHANGES = "UPDATE (state, tries, due_ms, ended_ms, tenant_id, reason)"
"""The body of a webhook never changes."""
_QUEUE = tuple(f"pgqueuer.pgqueuer{part}" for part in ("", "_log", "_schedules", "_statistics"))

TABLES: Mapping[str, Access] = MappingProxyType(
    {
        "public.alembic_version": Access(READ),
        # core
        "public.tenants": Access(EDIT, f"{READ}, UPDATE (makes_users, new_users_per_minute)"),
        "public.users": Access(EDIT, f"{APPEND}, UPDATE (created_at, external_id, erased_at, disabled_at)"),
        "public.api_keys": Access(
            EDIT, EDIT, secret=("hash",), tenant_check="NOT ('platform:admin'::text = ANY (scopes))"
        ),
        "public.key_uses": Access(EDIT, READ),
        "public.web_sessions": Access(KEEP, _SESSIONS_OF_A_TENANT, secret=("hash",)),
        "public.token_secrets": Access(EDIT, secret=("secret",)),
        "public.issuers": Access(f"{APPEND}, UPDATE (removed_at)", f"{APPEND}, UPDATE (removed_at)"),
        "public.members": Access(EDIT, EDIT, tenant_check="(role <> 'operator'::text)"),
        "public.invitations": Access(EDIT, EDIT, secret=("hash",), tenant_check="(role <> 'operator'::text)"),
        "public.audit_log": Access(APPEND, APPEND),
        # metering
        "public.tenant_epochs": Access(EDIT),
        "public.limit_sets": Access(EDIT, EDIT, tenant_check="(subject_id <> tenant_id)"),
        "public.tag_keys": Access(EDIT, EDIT),
        "public.tag_values": Access(KEEP, READ),
        "public.tag_limits": Access(KEEP, KEEP),
        "public.entitlements": Access(EDIT, READ),
        "public.prices": Access(f"SELECT, INSERT, DELETE, {_LOCK_ONLY}", READ),
        "public.price_bands": Access(APPEND, READ),
        "public.usage_requests": Access(EDIT, READ),
        "public.usage_entries": Access(APPEND, READ),
        "public.usage_daily": Access(EDIT, READ),
        "public.usage_monthly": Access(EDIT, READ),
        "public.usage_by_day": Access(EDIT, READ),
        "public.usage_by_tag": Access(EDIT, READ),
        "public.usage_meters": Access(EDIT, READ),
        "public.usage_checkpoints": Access(READ, READ),
        "public.usage_tag_checkpoints": Access(READ, READ),
        "public.usage_refusals": Access(EDIT, READ),
        "public.processes": Access(KEEP),
        "public.output_densities": Access(EDIT),
        "public.reconciliations": Access("SELECT, INSERT, DELETE"),
        # billing
        "public.plans": Access(f"{APPEND}, UPDATE (state)", READ),
        "public.operator_profile": Access(EDIT, READ),
        "public.razorpay_plans": Access(EDIT),
        "public.razorpay_account": Access(EDIT),
        "public.billing_profiles": Access(EDIT, EDIT),
        "public.billing_accounts": Access(EDIT),
        "public.subscriptions": Access(EDIT, READ),
        "public.billing_periods": Access(KEEP, READ),
        "public.bills": Access(f"SELECT, INSERT, {_BILL_CHANGES}", READ),
        "public.document_series": Access(EDIT),
        "public.charges": Access(EDIT, READ),
        "public.payments": Access(EDIT, READ),
        "public.refunds": Access(EDIT, READ),
        "public.disputes": Access(EDIT),
        "public.mandates": Access(EDIT, READ),
        "public.wallet_entries": Access(APPEND, READ),
        "public.wallet_settings": Access(EDIT, EDIT),
        "public.coupons": Access(f"{APPEND}, UPDATE (uses, expires_ms)"),
        "public.ledger_entries": Access(APPEND),
        "public.webhook_events": Access(f"{APPEND}, DELETE, {_EVENT_CHANGES}"),
        "public.razorpay_reconciliations": Access(APPEND),
        "public.compared_days": Access(EDIT),
        "public.billing_findings": Access(EDIT),
        "public.alert_endpoints": Access(KEEP, KEEP, secret=("secret", "previous_secret")),
        "public.alerts": Access(EDIT, APPEND),
        "public.alert_deliveries": Access(APPEND, READ),
        # PgQueuer's
        **{table: Access(KEEP) for table in _QUEUE},
    }
)

SEQUENCES: Mapping[str, Access] = MappingProxyType({f"{table}_id_seq": Access("USAGE") for table in _QUEUE})

FUNCTIONS: Mapping[str, Access] = MappingProxyType(
    {
        "public.erase_from_audit(uuid,uuid)": Access("EXECUTE", "EXECUTE"),
        "public.naka_add_usage(naka_usage[],smallint,text[])": Access("EXECUTE"),
        "public.naka_add_usage(naka_usage_0012[],smallint,text[])": Access("EXECUTE"),
        "public.naka_add_usage(naka_usage_0015[],smallint,text[])": Access("EXECUTE"),
        "public.naka_erase_tags(uuid,uuid)": Access("EXECUTE", "EXECUTE"),
        "public.naka_is_issuer_of_another(uuid,text)": Access("EXECUTE", "EXECUTE"),
        "public.naka_make_month(date)": Access("EXECUTE"),
        "public.naka_sum(bigint)": Access("EXECUTE"),
        "public.naka_detach_month(date,bigint,boolean)": Access("EXECUTE"),
    }
)
"""Functions named `naka_...`, and those that run as the schema's owner (SECURITY DEFINER)."""

SCHEMAS: Mapping[str, Access] = MappingProxyType({"public": Access("USAGE", "USAGE"), "pgqueuer": Access("USAGE")})

MONTH = re.compile(r"public\.usage_requests_\d{4}_\d{2}(_detached)?")
"""The partitions of `usage_requests`, attached or not: only the owner accesses them directly, others the parent."""

APPLICATION_POLICY = "naka_all"
TENANT_POLICY = "naka_one_tenant"


def is_declared(table: str) -> bool:
    """Whether the table, given as `schema.name`, is declared in this module."""
    return table in TABLES or MONTH.fullmatch(table) is not None


def tenant_condition(column: str) -> str:
    """The condition on a tenant's rows, as Postgres prints it. Raises in SQL if no tenant is set."""
    return f"({column} = (current_setting('{TENANT_SETTING}'::text))::uuid)"


def grants(access: Access, columns: frozenset[str]) -> dict[str, frozenset[tuple[str, str | None]]]:
    """The (privilege, column or None for the whole object) pairs by role. `columns`: the table's."""
    readable: frozenset[tuple[str, str | None]]
    if access.secret:
        readable = frozenset(("SELECT", column) for column in columns - set(access.secret))
    else:
        readable = frozenset({("SELECT", None)})
    return {APPLICATION: _parsed(access.app), TENANT: _parsed(access.tenant), READER: readable}


def _parsed(privileges: str) -> frozenset[tuple[str, str | None]]:
    """The pairs of a privilege and a column in a text like `SELECT, UPDATE (a, b)`."""
    found: set[tuple[str, str | None]] = set()
    for name, columns in re.findall(r"([A-Z]+)(?:\s*\(([^)]*)\))?", privileges):
        found.update((name, column.strip()) for column in columns.split(",")) if columns else found.add((name, None))
    return frozenset(found)
