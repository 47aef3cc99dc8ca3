"""Bills of a period that was cut: a document for each segment, by its own terms and the rest of the allowance."""

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import select

from billing.alerts.alerts import watched_terms
from billing.documents.invoice import DocumentLine
from billing.invoicing.report_prices import period_rates
from billing.models import BillingPeriod
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Terms
from billing.readings import read_period
from billing.segments import effective_terms
from tests.billing.operator import DAY_MS, PERIOD, RUPEE_A_TOKEN, TERMS, OperatorSetup

SECOND, THIRD = f"{PERIOD}~2", f"{PERIOD}~3"
DEARER = Terms((MeterTerms(Meter.OUTPUT_TOKENS, 2_000, 3 * RUPEE_A_TOKEN),), PastAllowance.BILL, 10_000_000)


async def cut(setup: OperatorSetup, *parts: tuple[str, Terms, int]) -> UUID:
    """A tenant whose ended period has these segments, each with output tokens."""
    tenant_id = await setup.tenant()
    for at, (name, terms, tokens) in enumerate(parts):
        await setup.period(tenant_id, name, terms=terms, ended_ms=(len(parts) - at) * DAY_MS)
        if tokens:
            await setup.add_usage(tenant_id, name, output_tokens=tokens)
    return tenant_id


async def billed(setup: OperatorSetup, tenant_id: UUID) -> dict[str, int]:
    """Taxable paise of each segment, less credit notes."""
    sums: dict[str, int] = {}
    for bill in await setup.bills(tenant_id):
        sums[bill.period_id] = sums.get(bill.period_id, 0) + bill.taxable_paise
    return sums


async def test_each_segment_is_billed_by_its_own_terms(setup: OperatorSetup) -> None:
    blocking = replace(DEARER, past_allowance=PastAllowance.BLOCK)
    tenant_id = await cut(setup, (PERIOD, TERMS, 1_200), (SECOND, blocking, 900), (THIRD, DEARER, 150))
    assert await setup.close() == 3
    assert await billed(setup, tenant_id) == {PERIOD: 20_000, THIRD: 15_000}, "2,000 less 1,000 and 900 are left"
    *_, bill = await setup.bills(tenant_id)
    (line,) = bill.lines
    assert (line["allowance"], line["of_allowance"], line["excess"]) == (100, 2_000, 50)
    assert DocumentLine.of(line).text == "Output tokens (1,900 of the 2,000 included were used earlier in the period)"
    assert await setup.close() == 0


async def test_late_usage_of_an_earlier_segment_prices_the_later_ones_again(setup: OperatorSetup) -> None:
    tenant_id = await cut(setup, (PERIOD, TERMS, 900), (SECOND, TERMS, 150))
    await setup.close()
    assert await billed(setup, tenant_id) == {SECOND: 5_000}
    await setup.add_usage(tenant_id, PERIOD, output_tokens=130)
    assert await setup.close() == 2
    assert await billed(setup, tenant_id) == {PERIOD: 3_000, SECOND: 15_000}
    assert await setup.close() == 0


@pytest.mark.slow
async def test_a_credit_reprices_its_segment_and_gives_the_allowance_to_the_next(setup: OperatorSetup) -> None:
    tenant_id = await cut(setup, (PERIOD, TERMS, 1_100), (SECOND, DEARER, 1_050))
    await setup.close()
    assert await billed(setup, tenant_id) == {PERIOD: 10_000, SECOND: 15_000}
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-120)
    await setup.close()
    assert await billed(setup, tenant_id) == {PERIOD: 0, SECOND: 9_000}
    assert [bill.kind for bill in await setup.bills(tenant_id)].count("credit_note") == 2


async def test_a_month_without_a_plan_before_the_first_one_costs_nothing(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant(plan="team")
    await setup.add_usage(tenant_id, "2026-01", output_tokens=9_000)
    await setup.period(tenant_id, "2026-02~2", kind="month")
    for name, tokens in (("2026-02", 700), ("2026-02~2", 1_002)):
        await setup.add_usage(tenant_id, name, output_tokens=tokens)
    await setup.close()
    assert await billed(setup, tenant_id) == {"2026-02~2": 200}
    async with setup.context.database.session() as session:
        rates = period_rates(tenant_id)
        priced = set(await session.scalars(select(rates.c.period_id)))
    assert {"2026-01", "2026-02", "2026-02~2"} & priced == {"2026-02~2"}


async def test_an_alert_counts_the_whole_period(setup: OperatorSetup) -> None:
    tenant_id = await cut(setup, (PERIOD, TERMS, 400), (SECOND, TERMS, 450))
    async with setup.context.database.session() as session:
        row = await session.get_one(BillingPeriod, (tenant_id, SECOND))
        terms, reading = await effective_terms(session, row), await read_period(session, tenant_id, SECOND)
    allowance, ceiling = watched_terms(terms, reading, row)
    assert (allowance.window_name, allowance.limit, allowance.used) == (PERIOD, 1_000, 850)
    assert (ceiling.limit, ceiling.used) == (10_000_000, 0)


@pytest.mark.slow
async def test_segments_close_in_the_order_of_time(setup: OperatorSetup) -> None:
    """By name, the tenth comes before the second."""
    tenant_id = await setup.tenant()
    names = [PERIOD, *(f"{PERIOD}~{number}" for number in range(2, 12))]
    for at, name in enumerate(names):
        await setup.period(tenant_id, name, ended_ms=(20 - at) * 60_000 + DAY_MS)
        await setup.add_usage(tenant_id, name, output_tokens=2_000)
    await setup.close()
    by_number = sorted(await setup.bills(tenant_id), key=lambda bill: bill.number or "")
    assert [bill.period_id for bill in by_number] == names
