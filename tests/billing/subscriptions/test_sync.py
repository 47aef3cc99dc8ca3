"""Sync of a subscription: fetches are applied in order, and a payment has its effects once."""

import asyncio

import pytest
from sqlalchemy import func, select

from billing.models import Bill, BillingPeriod, Payment, Subscription
from billing.razorpay.errors import RazorpayUnavailable
from billing.subscriptions.sync import refresh_subscription
from tests.billing.deliveries import GROSS_PAISE, findings, read_subscription, subscriber
from tests.billing.operator import OperatorSetup
from tests.programs import until
from tests.simulated_razorpay import Razorpay

SLOW_S = 1.5
"""Shorter than a read's time-out, longer than a refresh."""


async def _counts(setup: OperatorSetup) -> tuple[int, int, int]:
    """Bills, payments and confirmed cycles."""
    cycles = (
        select(func.count()).select_from(BillingPeriod).where(~BillingPeriod.foreseen, BillingPeriod.kind == "cycle")
    )
    async with setup.context.database.session() as session:
        bills = await session.scalar(select(func.count()).select_from(Bill))
        payments = await session.scalar(select(func.count()).select_from(Payment))
        return int(bills or 0), int(payments or 0), int(await session.scalar(cycles) or 0)


async def test_the_first_payment_is_a_cycle_a_bill_and_access(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay, "card_international")

    assert await refresh_subscription(setup.context, row.tenant_id, row.id)

    now = await read_subscription(setup.context, row.tenant_id, row.id)
    assert (now.status, now.payment_method, now.international, now.is_open) == ("active", "card", True, False)
    assert (now.paid_count, now.remaining_count, now.applied) == (1, 11, 1)
    assert now.authorised_ms
    assert now.paid_through_ms == now.current_end_ms
    (bill,) = await setup.bills()
    assert (bill.kind, bill.state, bill.total_paise, bill.paid_paise) == ("base", "paid", GROSS_PAISE, GROSS_PAISE)
    assert await _counts(setup) == (1, 1, 1)


async def test_again_changes_nothing_but_the_count_of_fetches(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    await refresh_subscription(setup.context, row.tenant_id, row.id)
    before = await setup.all_rows()

    for _ in range(3):
        await refresh_subscription(setup.context, row.tenant_id, row.id)

    assert await setup.all_rows() == before
    assert (await read_subscription(setup.context, row.tenant_id, row.id)).applied == 4


async def test_cycles_that_nobody_told_of_are_all_learnt(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    razorpay.advance(days=65)

    await refresh_subscription(setup.context, row.tenant_id, row.id)

    now = await read_subscription(setup.context, row.tenant_id, row.id)
    assert now.paid_count == 3
    assert await _counts(setup) == (3, 3, 3)
    assert now.paid_through_ms == now.current_end_ms


@pytest.mark.slow
async def test_a_slow_fetch_does_not_overwrite_a_newer_one(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    await refresh_subscription(setup.context, row.tenant_id, row.id)
    razorpay.fault(route="GET /v1/subscriptions/*", kind="slow", when="after", delay_s=SLOW_S)

    slow = asyncio.create_task(refresh_subscription(setup.context, row.tenant_id, row.id))
    await until(lambda: _struck(razorpay))
    await asyncio.to_thread(razorpay.sim, "POST", f"/subscriptions/{row.razorpay_id}/customer", action="revoke")
    await refresh_subscription(setup.context, row.tenant_id, row.id)
    assert not slow.done(), "the slow one was not overtaken"
    newest = await read_subscription(setup.context, row.tenant_id, row.id)
    await slow

    now = await read_subscription(setup.context, row.tenant_id, row.id)
    assert now.status == newest.status == "cancelled"
    assert now.applied == 3, "the slow one fetched once more"


async def _struck(razorpay: Razorpay) -> bool:
    """Whether the slow request has arrived."""
    found = await asyncio.to_thread(razorpay.sim, "GET", "/faults")
    return any(one["struck"] for one in found["answers"])


async def test_a_list_that_lags_is_said_to(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    razorpay.fault(route="GET /v1/invoices*", kind="lag", delay_s=600, times=None)

    assert not await refresh_subscription(setup.context, row.tenant_id, row.id)
    assert (await read_subscription(setup.context, row.tenant_id, row.id)).status == "active"
    assert (await _counts(setup))[:2] == (0, 0)

    (invoice,) = razorpay.ledger()["invoices"]
    assert await refresh_subscription(setup.context, row.tenant_id, row.id, hints=[invoice["id"]])
    assert await _counts(setup) == (1, 1, 1)


async def test_one_that_waits_to_be_authorised_gives_nothing(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay, None)

    await refresh_subscription(setup.context, row.tenant_id, row.id)

    now = await read_subscription(setup.context, row.tenant_id, row.id)
    assert (now.status, now.is_open, now.authorised_ms, now.paid_through_ms) == ("created", True, None, None)
    assert await _counts(setup) == (0, 0, 0)


async def test_the_one_that_it_replaces_is_to_end(setup: OperatorSetup, razorpay: Razorpay) -> None:
    old = await subscriber(setup, razorpay)
    await refresh_subscription(setup.context, old.tenant_id, old.id)
    new = await subscriber(setup, razorpay)
    async with setup.context.database.session() as session:
        moved = await session.get_one(Subscription, (new.tenant_id, new.id))
        old_row = await session.get_one(Subscription, (old.tenant_id, old.id))
        moved.tenant_id, moved.replaces, moved.is_open = old_row.tenant_id, old_row.id, True

    await refresh_subscription(setup.context, old.tenant_id, new.id)

    ended = await read_subscription(setup.context, old.tenant_id, old.id)
    assert (ended.cancel_state, ended.cancel_reason) == ("intended", "replaced")
    assert ended.cancel_at_ms


async def test_an_id_that_razorpay_does_not_know_is_a_finding(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay, None, razorpay_id="sub_TmA1c9RkVe7HbN")

    assert await refresh_subscription(setup.context, row.tenant_id, row.id)

    assert await findings(setup.context) == ["subscription_unknown"]
    assert (await read_subscription(setup.context, row.tenant_id, row.id)).applied == 0


async def test_razorpay_away_applies_nothing(setup: OperatorSetup, razorpay: Razorpay) -> None:
    row = await subscriber(setup, razorpay)
    razorpay.fault(route="GET /v1/invoices*", kind="error", status=500, times=None)

    with pytest.raises(RazorpayUnavailable):
        await refresh_subscription(setup.context, row.tenant_id, row.id)

    assert (await read_subscription(setup.context, row.tenant_id, row.id)).applied == 0
