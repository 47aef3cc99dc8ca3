"""Threshold bills: overage billed within a running period, and deducted by its close."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from billing.access.projection import project
from billing.invoicing.held_bills import void_held_bill
from billing.invoicing.issuing import document_of
from billing.invoicing.threshold_bills import bill_if_reached, bill_thresholds
from billing.models import Bill, BillingPeriod, Plan
from billing.rating.overage import PastAllowance, Terms
from core.clock import now_ms
from core.tenancy.audit import Actor
from tests.billing.operator import DAY_MS, METERS, PERIOD, TERMS, OperatorSetup, shown
from tests.metering.proof import this_month

THRESHOLD = 100_000
"""A thousand tokens past the allowance."""


@pytest.fixture
async def setup(setup: OperatorSetup) -> OperatorSetup:
    """An operator whose plan `heavy` bills each Rs 1,000."""
    async with setup.context.database.session() as session:
        session.add(
            Plan(
                code="heavy",
                version=1,
                name="Heavy",
                limits={},
                base_paise=0,
                meters=METERS,
                past_allowance="bill",
                ceiling_paise=10_000_000,
                threshold_paise=THRESHOLD,
            )
        )
    return setup


async def running(setup: OperatorSetup, tokens: int, *, is_known: bool = True) -> UUID:
    """A tenant whose month runs, with `tokens` past the allowance."""
    tenant_id = await setup.tenant(plan="heavy", is_known=is_known)
    async with setup.context.tenant_transaction(tenant_id) as session:
        await project(session, setup.context.zone, tenant_id, now_ms())
    await setup.add_usage(tenant_id, this_month().name, output_tokens=1_000 + tokens)
    return tenant_id


async def test_a_running_period_is_billed_at_its_threshold_and_deducted_by_its_close(setup: OperatorSetup) -> None:
    tenant_id = await running(setup, 999)
    assert await bill_thresholds(setup.context) == 0
    await setup.add_usage(tenant_id, this_month().name, output_tokens=51)
    assert await bill_thresholds(setup.context) == 1
    assert await bill_thresholds(setup.context) == 0
    (bill,) = await setup.bills(tenant_id)
    assert (bill.state, bill.taxable_paise, bill.total_paise) == ("open", 105_000, 123_900)
    async with setup.context.database.session() as session:
        period = await session.get_one(BillingPeriod, (tenant_id, this_month().name))
        notes = (await document_of(session, setup.context, bill)).notes
    assert period.state == "open"
    assert "Further usage of the period is on a later one" in " ".join(notes)

    await setup.add_usage(tenant_id, this_month().name, output_tokens=1_950)
    assert await bill_thresholds(setup.context) == 1
    await setup.add_usage(tenant_id, this_month().name, output_tokens=7)
    await end(setup, tenant_id)
    assert await setup.close() == 1
    bills = await setup.bills(tenant_id)
    assert [one.taxable_paise for one in bills] == [105_000, 195_000, 700]
    assert len({one.number for one in bills}) == 3


async def test_many_workers_at_once_make_one_bill(setup: OperatorSetup) -> None:
    tenant_id = await running(setup, 1_200)
    made = await asyncio.gather(*(bill_if_reached(setup.context, tenant_id, this_month().name) for _ in range(6)))
    assert sum(made) == 1
    assert [one.taxable_paise for one in await setup.bills(tenant_id)] == [120_000]


async def test_usage_credited_later_is_given_back_by_the_close(setup: OperatorSetup) -> None:
    tenant_id = await running(setup, 1_200)
    await bill_thresholds(setup.context)
    await setup.add_usage(tenant_id, this_month().name, output_tokens=-500)
    assert await bill_thresholds(setup.context) == 0
    await end(setup, tenant_id)
    await setup.close()
    assert shown(await setup.bills(tenant_id))[1:] == [("credit_note", "issued", -50_000, -59_000)]


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "trial"},
        {"terms": Terms(TERMS.meters, PastAllowance.BLOCK)},
        {"state": "closed"},
        {"plan_code": "team"},
    ],
    ids=str,
)
async def test_no_other_period_is_billed_early(setup: OperatorSetup, more: dict[str, Any]) -> None:
    tenant_id = await setup.tenant()
    await setup.period(tenant_id, PERIOD, ended_ms=-10 * DAY_MS, **({"plan_code": "heavy"} | more))
    await setup.add_usage(tenant_id, PERIOD, output_tokens=9_000)
    await bill_thresholds(setup.context)
    assert await setup.bills(tenant_id) == []


async def test_without_a_profile_it_waits(setup: OperatorSetup) -> None:
    tenant_id = await running(setup, 2_000, is_known=False)
    assert await bill_thresholds(setup.context) == 0
    assert await setup.bills(tenant_id) == []
    await setup.set_profile(tenant_id)
    assert await bill_thresholds(setup.context) == 1


async def test_a_held_bill_is_not_made_again_each_minute(setup: OperatorSetup) -> None:
    tenant_id = await running(setup, 90_000)  # far above what is usual, and above twice the threshold
    assert await bill_thresholds(setup.context) == 1
    await setup.add_usage(tenant_id, this_month().name, output_tokens=5)
    assert await bill_thresholds(setup.context) == 0
    (held,) = await setup.bills(tenant_id)
    assert held.state == "held"
    await void_held_bill(setup.context, Actor("test"), held.id, "a mistake")
    assert await bill_thresholds(setup.context) == 0
    async with setup.context.database.session() as session:
        assert (await session.get_one(Bill, (tenant_id, held.id))).state == "void"


async def test_billing_a_running_period_anew_does_not_close_it(setup: OperatorSetup) -> None:
    tenant_id = await running(setup, 90_000)
    await bill_thresholds(setup.context)
    (held,) = await setup.bills(tenant_id)
    await void_held_bill(setup.context, Actor("test"), held.id, "a new profile", again=True)
    async with setup.context.database.session() as session:
        assert (await session.get_one(BillingPeriod, (tenant_id, this_month().name))).state == "open"


async def end(setup: OperatorSetup, tenant_id: UUID) -> None:
    """Ends the period a moment ago."""
    async with setup.context.database.session() as session:
        (await session.get_one(BillingPeriod, (tenant_id, this_month().name))).ends_ms = now_ms() - 1
