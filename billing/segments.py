"""The segments of a period as rows, and the terms that each is priced by.

A row of `billing_periods` is a segment. Terms of one that has begun never change: where they would, the row ends and
another follows (`billing.access.periods`). Postgres down: Unavailable.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import BillingPeriod
from billing.models.states import PeriodKind
from billing.rating.overage import PastAllowance, Terms
from billing.rating.segments import NOTHING_SPENT, Spent, after, spend
from billing.readings import read_period
from metering.quota.schedule import number_of, window_of


async def effective_terms(session: AsyncSession, period: BillingPeriod) -> Terms:
    """The terms that a segment is priced by: its own, less what earlier segments of its period used of theirs.

    By the current meters, so a later settlement of an earlier segment may change them. Without the wallet's bound.
    """
    return after(own_terms(period), await spent_before(session, period))


async def spent_before(session: AsyncSession, period: BillingPeriod) -> Spent:
    """The usage of the period's earlier segments. Usage from before the tenant had a plan has no row."""
    number = number_of(period.period_id)
    if number == 1:
        return NOTHING_SPENT
    rows = await segments_of(session, period.tenant_id, window_of(period.period_id))
    earlier = [row for row in rows if number_of(row.period_id) < number]
    return (await spent_before_each(session, [*earlier, period]))[period.period_id]


async def spent_before_each(session: AsyncSession, rows: Sequence[BillingPeriod]) -> dict[str, Spent]:
    """`spent_before` of all segments of one period, in order, by name: each meter is read once."""
    found, spent = dict[str, Spent](), NOTHING_SPENT
    if number_of(rows[0].period_id) > 1:
        window = window_of(rows[0].period_id)
        spent = spend(spent, await read_period(session, rows[0].tenant_id, window), None)
    for row in rows:
        found[row.period_id] = spent
        if row is not rows[-1]:
            reading = await read_period(session, row.tenant_id, row.period_id)
            spent = spend(spent, reading, after(own_terms(row), spent))
    return found


async def segments_of(session: AsyncSession, tenant_id: UUID, window: str) -> Sequence[BillingPeriod]:
    """The rows of a period, in order."""
    query = select(BillingPeriod).where(
        BillingPeriod.tenant_id == tenant_id, func.split_part(BillingPeriod.period_id, "~", 1) == window
    )
    return sorted(await session.scalars(query), key=lambda row: number_of(row.period_id))


def own_terms(period: BillingPeriod) -> Terms:
    """The segment's terms as if it were the first. A trial bills nothing, whatever its plan says."""
    terms = msgspec.convert(period.terms, Terms)
    if period.kind == PeriodKind.TRIAL:
        return Terms(terms.meters, PastAllowance.BLOCK)
    return terms
