"""The daily proof of the ledger: an account that differs from its rows is a finding. Postgres down: Unavailable."""

from billing.context import BillingContext
from billing.findings import record_finding
from billing.findings.resolved import resolve_others
from billing.ledger.balances import differences
from core.clock import now_ms

_KIND = "ledger_differs"
_MOST = 1_000
"""Tenants in one run; if there are more, no finding is closed."""


async def prove_ledger(context: BillingContext) -> None:
    """The duty LEDGER: records the accounts that differ, and closes the findings of those that no longer do."""
    async with context.database.session() as session:
        differing = await differences(session, limit=_MOST)
        found = {f"ledger:{one.tenant_id}:{one.account}": one for one in differing}
        for key, one in found.items():
            detail = {"account": one.account, "booked_paise": one.booked, "derived_paise": one.derived}
            await record_finding(session, key, _KIND, tenant_id=one.tenant_id, **detail)
        if len({one.tenant_id for one in differing}) < _MOST:
            await resolve_others(session, _KIND, set(found), now_ms())
