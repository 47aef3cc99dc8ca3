"""Document numbers without gap or repeat under concurrent closes; Indian financial years."""

import asyncio
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from billing.context import BillingContext
from billing.gst.invoice_numbers import Series, WrongNumber, parse_number
from billing.gst.number_series import take_number
from billing.invoicing.period_close import close_due
from billing.models import DocumentSeries
from core.clock import to_ms
from tests.billing.operator import PERIOD, OperatorSetup

INDIA = ZoneInfo("Asia/Kolkata")


def in_india(*parts: int) -> int:
    """A time in Unix milliseconds."""
    return to_ms(datetime(*parts, tzinfo=INDIA))  # type: ignore[arg-type, misc]  # year, month, day, hour, minute


@pytest.mark.slow
async def test_two_workers_and_two_hundred_periods(setup: OperatorSetup) -> None:
    tenants = await setup.tenants(200)
    await setup.periods(tenants, PERIOD)
    await setup.add_usage(tenants, PERIOD, output_tokens=1_007)
    done = await asyncio.gather(close_due(setup.context), close_due(setup.context))
    assert sum(done) == 200
    assert min(done) > 0

    bills = await setup.bills()
    assert {bill.tenant_id for bill in bills} == set(tenants)
    numbers = sorted(parse_number(bill.number or "").running for bill in bills)
    assert numbers == list(range(1, 201))

    before = await setup.all_rows()
    assert await close_due(setup.context) == 0
    assert await setup.all_rows() == before


async def test_a_number_of_what_was_rolled_back_is_given_again(context: BillingContext) -> None:
    at_ms = in_india(2026, 11, 23, 12, 0)
    async with context.database.session() as session:
        await take_number(session, Series.LIVE_INVOICES, at_ms)
        await session.rollback()
    async with context.database.session() as session:
        assert str(await take_number(session, Series.LIVE_INVOICES, at_ms)) == "INV/2627/0000001"


async def test_a_number_is_waited_for(context: BillingContext) -> None:
    at_ms = in_india(2026, 11, 23, 12, 0)

    async def take() -> str:
        async with context.database.session() as session:
            taken = await take_number(session, Series.TEST_INVOICES, at_ms)
            await asyncio.sleep(0.01)
        return str(taken)

    taken = await asyncio.gather(*(take() for _ in range(8)))
    assert sorted(taken) == [f"TIN/2627/{number:07d}" for number in range(1, 9)]


async def test_the_financial_year_turns_at_midnight_in_india(context: BillingContext) -> None:
    async def take(at_ms: int) -> str:
        async with context.database.session() as session:
            return str(await take_number(session, Series.SANDBOX_INVOICES, at_ms))

    assert await take(in_india(2027, 3, 31, 23, 58)) == "SIN/2627/0000001"
    assert await take(in_india(2027, 3, 31, 23, 59)) == "SIN/2627/0000002"
    assert await take(in_india(2027, 4, 1, 0, 0)) == "SIN/2728/0000001"
    with pytest.raises(WrongNumber):
        await take(in_india(2027, 3, 31, 23, 59))
    async with context.database.session() as session:
        assert (await session.get_one(DocumentSeries, "SIN")).last == "SIN/2728/0000001"
