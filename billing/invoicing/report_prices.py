"""Rated value of usage and billed amounts, for the usage reports of metering.

*Rated value* is all usage at the rates of its period's terms, ignoring allowance, ceiling and tax, so it can be summed
over users, keys, models and days. *Billed* is the taxable total of bills. Exact integers, rounded once for display.
"""

from datetime import date
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import BigInteger, Text, and_, case, column, func, select, true, union_all
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.selectable import Subquery

from billing.access.months import months_without_row
from billing.models.bills import Bill
from billing.models.catalogue import Plan
from billing.models.states import FINAL, VOUCHERS
from billing.models.subscriptions import BillingPeriod
from billing.rating.overage import Meter
from core.money import divide_half_up
from metering.models import UsageMeter
from metering.quota.windows import day_start_ms
from metering.reports.usage_report import RATES

NANO_PER_PAISA = 1_000_000_000
NANO_USD_PER_USD = 1_000_000_000
_RATES = dict(zip(Meter, RATES, strict=True))


def period_rates(tenant_id: UUID | None = None) -> Subquery:
    """A table (tenant_id, period_id, each meter's rate in paise per million) for `metering.reports.usage_report`.

    Rates come from the terms of the period's segment; a month without a row yet takes its tenant's current plan, and
    one from before the tenant had a plan has no rates.
    """
    own = select(BillingPeriod.tenant_id, BillingPeriod.period_id, BillingPeriod.terms["meters"].label("meters"))
    months = months_without_row(*([] if tenant_id is None else [UsageMeter.tenant_id == tenant_id]))
    others = select(months.c.tenant_id, months.c.period_id, Plan.meters.label("meters")).join(
        Plan, and_(Plan.code == months.c.plan_code, Plan.version == months.c.plan_version)
    )
    if tenant_id is not None:
        own = own.where(BillingPeriod.tenant_id == tenant_id)
    terms = union_all(own, others).subquery("terms")
    meter = (
        func.jsonb_to_recordset(terms.c.meters.cast(JSONB))
        .table_valued(column("meter", Text), column("rate_paise", BigInteger))
        .render_derived(name="m", with_types=True)
    )
    rates: list[Any] = [
        func.max(case((meter.c.meter == name.value, meter.c.rate_paise))).label(label) for name, label in _RATES.items()
    ]
    return (
        select(terms.c.tenant_id, terms.c.period_id, *rates)
        .select_from(terms.join(meter, true()))
        .group_by(terms.c.tenant_id, terms.c.period_id)
        .subquery("rates")
    )


async def billed_by_tenant(
    session: AsyncSession, zone: ZoneInfo, first: date, last: date, tenant_id: UUID | None = None
) -> dict[UUID, int]:
    """Paise before tax per tenant, over final bills issued from `first` to `last`; credit notes are negative.

    Vouchers are left out: an advance is billed when usage uses it up.
    """
    last_ms = day_start_ms(date.fromordinal(last.toordinal() + 1), zone)
    query = (
        select(Bill.tenant_id, func.sum(Bill.taxable_paise))
        .where(
            Bill.state.in_(FINAL),
            Bill.kind.not_in(VOUCHERS),
            Bill.issued_ms >= day_start_ms(first, zone),
            Bill.issued_ms < last_ms,
        )
        .group_by(Bill.tenant_id)
    )
    if tenant_id is not None:
        query = query.where(Bill.tenant_id == tenant_id)
    return {tenant: int(total) for tenant, total in (await session.execute(query)).all()}


def paise_of(rated_nano_paise: int) -> int:
    """A price in whole paise, rounded half up."""
    return divide_half_up(rated_nano_paise, NANO_PER_PAISA)


def cost_in_paise(cost_nano_usd: int, paise_per_usd: int) -> int:
    """The provider's cost in whole paise at the operator's exchange rate, rounded half up."""
    return divide_half_up(cost_nano_usd * paise_per_usd, NANO_USD_PER_USD)


def margin_paise(rated_nano_paise: int, cost_nano_usd: int, paise_per_usd: int) -> int:
    """Price minus the provider's cost, in whole paise, rounded once, half up."""
    return divide_half_up(rated_nano_paise - cost_nano_usd * paise_per_usd, NANO_PER_PAISA)
