"""The ledger for platform admins: balances with their proof, and a month for the accountant.

Postgres down: raises Unavailable, also in the middle of an export.
"""

import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from uuid import UUID

from api.schemas.billing.ledger import MONTH, LedgerBalances, LedgerDifference, LedgerForm
from api.schemas.csv_text import as_csv
from api.services.accounts.lookups import confine, operated_tenant
from api.services.context import ServiceContext
from billing.ledger import adjusting
from billing.ledger.balances import balances, differences
from billing.ledger.export import COLUMNS, booked_entries, tally_xml
from core.errors import Invalid
from core.tenancy.principal import Scope
from metering.quota.windows import Calendar, day_start_ms


async def ledger_balances(context: ServiceContext, tenant: UUID | str | None = None) -> LedgerBalances:
    """The balances of one tenant or of all, and where they differ from the rows. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        tenant_id = await confine(context, session, tenant)
        found = await differences(session, tenant_id)
        differing = [LedgerDifference(**asdict(one)) for one in found]
        return LedgerBalances(**await balances(session, tenant_id), differences=differing)


async def adjust_ledger(context: ServiceContext, tenant: UUID | str, reason: str) -> LedgerBalances:
    """Books the differences between a tenant's rows and its entries. Returns the balances after it. Raises NotFound."""
    tenant_id = await operated_tenant(context, tenant)
    await adjusting.adjust_ledger(context.billing, context.actor, tenant_id, reason)
    return await ledger_balances(context, tenant_id)


async def export_ledger(
    context: ServiceContext, month: str, form: LedgerForm, tenant: UUID | str | None = None
) -> AsyncGenerator[str, None]:
    """The month's entries as a file in pieces. Raises NotFound for the tenant, Invalid for the month."""
    if re.fullmatch(MONTH, month) is None:
        raise Invalid("a month is written as 2026-11")
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        tenant_id = await confine(context, session, tenant)
    window = Calendar(context.settings.timezone).month(day_start_ms(date.fromisoformat(f"{month}-01"), context.zone))
    transactions = partial(context.transaction, Scope.PLATFORM_ADMIN)
    batches = booked_entries(transactions, context.zone, window.starts_ms, window.ends_ms, tenant_id)

    async def lines() -> AsyncGenerator[Iterable[Sequence[object]], None]:
        async for entries in batches:
            yield [line for entry in entries for line in entry.lines()]

    async def vouchers() -> AsyncGenerator[str, None]:
        async for text in tally_xml(batches):
            yield text

    return as_csv(lines(), COLUMNS) if form == "csv" else vouchers()
