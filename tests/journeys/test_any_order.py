"""Webhooks in any order and number, with killed workers: the same final state, and no double payment."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st

from billing.context import BillingContext
from billing.reconciliation import reconcile_razorpay
from billing.webhooks.inbox import Inbox
from core.clock import now_ms, stop_following
from core.postgres.database import Connections
from tests import simulated_razorpay as sandbox
from tests.billing.signup import DAY_S
from tests.billing_context import open_billing_context
from tests.journeys.shuffled import Order, Story

DAY_MS = DAY_S * 1000
QUIET = Order(seed=0, chaos=0)
orders = st.builds(
    Order,
    seed=st.integers(0, 2**32),
    drop=st.sampled_from((0.0, 0.2, 0.5)),
    late=st.sampled_from((0.0, 0.3, 0.6)),
    kills=st.sampled_from((2, 1, 0)),
)


@pytest.fixture
async def context(database_url: str, redis_url: str, razorpay: sandbox.Razorpay) -> AsyncIterator[BillingContext]:
    """A billing context on its own database."""
    secret = sandbox.WEBHOOK_SECRET
    async with open_billing_context(database_url, redis_url, razorpay, razorpay_webhook_secret=secret) as made:
        yield made
        stop_following()


@pytest.fixture
async def inbox(context: BillingContext) -> AsyncIterator[Inbox]:
    """The inbox of the API's webhook route."""
    pool = Connections(context.settings.database_url)
    await pool.start()
    made = Inbox(pool, context.settings.razorpay_webhook_secret)
    yield made
    await made.stop()
    await pool.close()


@pytest.fixture
async def undisturbed(context: BillingContext, inbox: Inbox, razorpay: sandbox.Razorpay) -> dict[str, Any]:
    """The final state when every webhook arrives once, in order, and no worker dies."""
    story = await Story(context, inbox, razorpay, QUIET).tell()
    await _is_sound(story)
    end = await _end_state(story)
    for number in range(2):
        assert [bill[0] for bill in end[f"{number}: bills"]] == ["base"] * 3 + ["overage"] * 2
    return end


async def _end_state(story: Story) -> dict[str, Any]:
    """The state that all runs must share, without generated ids and times."""
    found: dict[str, Any] = {}
    for number, customer in enumerate(story.customers):
        bills, periods, rows = await customer.bills(), await customer.periods(), await customer.subscriptions()
        name = {period.period_id: period.ends_ms for period in periods}
        found[f"{number}: bills"] = sorted(
            (
                bill.kind,
                bill.seq,
                name[bill.period_id],
                bill.state,
                bill.taxable_paise,
                bill.total_paise,
                bill.paid_paise,
            )
            for bill in bills
        )
        found[f"{number}: cycles"] = [
            (period.kind, period.starts_ms // DAY_MS, period.ends_ms, period.state, period.paid, period.reading)
            for period in periods
            if period.kind == "cycle" and not period.foreseen
        ]
        found[f"{number}: subscription"] = [
            (row.state, row.status, row.paid_count, row.remaining_count, row.paid_through_ms, row.cancel_state)
            for row in rows
        ]
        schedule = await customer.schedule()
        found[f"{number}: access"] = (
            [
                (part.from_ms, part.plan_version, part.refusal and part.refusal.code)
                for part in schedule.segments
                if part.from_ms > now_ms()
            ],
            [(part.plan_version, part.refusal) for part in schedule.segments if part.from_ms <= now_ms()][-1:],
        )
        found[f"{number}: refunds"] = await customer.refunds()
    found["numbers"] = sorted(row["number"] for row in await story.rows("SELECT number FROM bills"))
    found["money"] = story.razorpay.money()["totals"]
    return found


async def _is_sound(story: Story) -> None:
    """Invariants of every run."""
    (paid,) = await story.rows("SELECT sum(paid_paise)::bigint AS paise FROM bills WHERE state = 'paid'")
    assert story.razorpay.money()["totals"]["kept"] == paid["paise"]
    again = await reconcile_razorpay(story.context)
    assert (again.healed, again.unexplained) == ([], [])
    findings = await story.rows("SELECT kind, detail FROM billing_findings")
    assert findings == []
    numbers = [int(row["number"][-6:]) for row in await story.rows("SELECT number FROM bills ORDER BY number")]
    assert numbers == list(range(1, len(numbers) + 1)), "a gap, or a number twice"
    undone = await story.rows("SELECT kind, state, reason FROM webhook_events WHERE state IN ('received', 'parked')")
    assert undone == []


@pytest.mark.slow
@settings(
    max_examples=2,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(order=orders)
@example(order=Order(seed=1, drop=1.0))
@example(order=Order(seed=2, drop=0.0, late=0.6))
async def test_any_order_ends_the_same(
    context: BillingContext, inbox: Inbox, razorpay: sandbox.Razorpay, order: Order, undisturbed: dict[str, Any]
) -> None:
    story = await Story(context, inbox, razorpay, order).tell()

    note(f"{dict(story.fates)}, {[worker.deaths for worker in story.workers]} deaths")
    assert await _end_state(story) == undisturbed
    await _is_sound(story)
