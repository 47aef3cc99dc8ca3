"""A tenant's prepaid periods with their prices so far, and the bound that the wallet puts on each.

Read under the tenant's lock, so that no entry is written meanwhile. Postgres down: Unavailable.
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import msgspec
from sqlalchemy import and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Bill, BillingPeriod
from billing.models.states import DRAFT, BillKind, BillState, PeriodKind, PeriodState
from billing.rating.overage import NOTHING_BILLED, AlreadyBilled, PastAllowance, Terms, price_period
from billing.rating.segments import Spent, after
from billing.readings import has_open_requests, read_period
from billing.segments import effective_terms, own_terms, segments_of, spent_before_each
from billing.wallet.entries import balance_of
from billing.wallet.funds import PrepaidPeriod, available, funds_to_admit, funds_to_bill
from metering.quota.limits import MAX_CEILING_PAISE
from metering.quota.schedule import window_of

IS_PREPAID = and_(
    BillingPeriod.terms["past_allowance"].astext == PastAllowance.PREPAID.value, BillingPeriod.kind != PeriodKind.TRIAL
)


async def prepaid_periods(session: AsyncSession, tenant_id: UUID, now_ms: int) -> Sequence[PrepaidPeriod]:
    """The periods that the wallet may still have to pay for, oldest first; those to come are among them."""
    is_held = exists().where(
        Bill.tenant_id == BillingPeriod.tenant_id,
        Bill.period_id == BillingPeriod.period_id,
        Bill.kind == BillKind.OVERAGE,
        Bill.state == BillState.HELD,
    )
    query = select(BillingPeriod).where(
        BillingPeriod.tenant_id == tenant_id, IS_PREPAID, or_(BillingPeriod.state == PeriodState.OPEN, is_held)
    )
    rows = (await session.scalars(query.order_by(BillingPeriod.starts_ms, BillingPeriod.period_id))).all()
    spent: dict[str, Spent] = {}
    for window in {window_of(row.period_id) for row in rows}:
        spent |= await spent_before_each(session, await segments_of(session, tenant_id, window))
    billed = await _billed_paise(session, rows)
    return [
        await _priced(session, row, after(own_terms(row), spent[row.period_id]), billed[row.period_id], now_ms)
        for row in rows
    ]


async def billed_terms(session: AsyncSession, period: BillingPeriod, billed: AlreadyBilled, now_ms: int) -> Terms:
    """The terms that a period is billed by now: for a prepaid one, the ceiling is what the wallet still pays for.

    `billed`: by the period's documents, without drafts.
    """
    terms = await effective_terms(session, period)
    if terms.past_allowance is not PastAllowance.PREPAID:
        return terms
    periods = await prepaid_periods(session, period.tenant_id, now_ms)
    balance_paise = await balance_of(session, period.tenant_id)
    return _bounded(terms, funds_to_bill(balance_paise, periods, period.period_id, billed.total_paise))


async def funds_of_periods(session: AsyncSession, tenant_id: UUID, now_ms: int) -> dict[str, int]:
    """The ceiling of each prepaid period for admission, by name; any other prepaid period has none of the wallet."""
    periods = await prepaid_periods(session, tenant_id, now_ms)
    if not periods:
        return {}
    funds = funds_to_admit(await balance_of(session, tenant_id), periods, now_ms)
    return {name: min(paise, MAX_CEILING_PAISE) for name, paise in funds.items()}


async def unused_paise(session: AsyncSession, tenant_id: UUID, now_ms: int) -> int:
    """The amount that the tenant may still spend: the balance less the price of usage that no bill has drawn yet."""
    return available(await balance_of(session, tenant_id), await prepaid_periods(session, tenant_id, now_ms))


def _bounded(terms: Terms, funds_paise: int) -> Terms:
    most = funds_paise if terms.ceiling_paise is None else min(terms.ceiling_paise, funds_paise)
    return replace(terms, ceiling_paise=most)


async def _priced(
    session: AsyncSession, row: BillingPeriod, terms: Terms, billed_paise: int, now_ms: int
) -> PrepaidPeriod:
    ended = row.ends_ms <= now_ms
    price = 0
    if row.starts_ms <= now_ms:
        reading = await read_period(session, row.tenant_id, row.period_id)
        price = price_period(reading, terms).taxable_paise
    return PrepaidPeriod(
        name=row.period_id,
        ends_ms=row.ends_ms,
        price_paise=price,
        billed_paise=billed_paise,
        most_paise=terms.ceiling_paise,
        is_settled=ended and not await has_open_requests(session, row.tenant_id, row.period_id),
    )


async def _billed_paise(session: AsyncSession, rows: Sequence[BillingPeriod]) -> dict[str, int]:
    """The amount before tax that each period's documents billed, by its name, without drafts, which draw nothing."""
    if not rows:
        return {}
    query = select(Bill.period_id, Bill.taken).where(
        Bill.tenant_id == rows[0].tenant_id,
        Bill.period_id.in_([row.period_id for row in rows]),
        Bill.kind.in_((BillKind.OVERAGE, BillKind.CREDIT_NOTE)),
        or_(Bill.number.is_not(None), Bill.state.not_in(DRAFT)),
    )
    billed = {row.period_id: NOTHING_BILLED for row in rows}
    for period_id, taken in await session.execute(query):
        billed[period_id] += msgspec.convert(taken, AlreadyBilled)
    return {period_id: one.total_paise for period_id, one in billed.items()}
