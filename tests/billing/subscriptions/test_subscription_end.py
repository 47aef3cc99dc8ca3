"""End of a subscription by our own clock: before its next charge is announced, never before the paid time is over."""

import pytest

from billing.subscriptions.intents import NOTICE_MS, cancel_subscription, keep_subscription, pause_subscription
from billing.subscriptions.push import push_subscriptions
from core.errors import Conflict, NotFound
from tests.billing.signup import ACTOR, Signup

HOUR_MS = 3_600_000


async def _cancel(signup: Signup, *, at_period_end: bool = True) -> None:
    await cancel_subscription(signup.context, ACTOR, signup.tenant_id, at_period_end=at_period_end, reason="a wish")


async def test_a_cancel_at_the_end_is_told_two_days_before(signup: Signup) -> None:
    row = await signup.subscribed()
    await _cancel(signup)
    await push_subscriptions(signup.context)
    row = await signup.read(row.id)
    assert (row.status, row.cancel_state, row.cancel_at_ms) == ("active", "intended", row.current_end_ms)
    assert row.current_end_ms

    await signup.advance(to_ms=row.current_end_ms - NOTICE_MS - HOUR_MS)
    await push_subscriptions(signup.context)
    assert (await signup.read(row.id)).status == "active"
    await signup.advance(seconds=2 * 3_600)
    await push_subscriptions(signup.context)

    row = await signup.read(row.id)
    assert (row.status, row.cancel_state) == ("cancelled", "done")
    assert await signup.served_until() == row.paid_through_ms, "the paid time is served"
    await signup.advance(days=40)
    await push_subscriptions(signup.context)
    assert len([bill for bill in await signup.bills() if bill.kind == "base"]) == 1


async def test_a_cancel_now_is_told_at_once_and_the_paid_month_is_served(signup: Signup) -> None:
    row = await signup.subscribed()
    await _cancel(signup, at_period_end=False)
    await push_subscriptions(signup.context)

    row = await signup.read(row.id)
    assert (row.status, row.cancel_state) == ("cancelled", "done")
    assert await signup.served_until() == row.paid_through_ms
    with pytest.raises(NotFound):
        await _cancel(signup)


async def test_a_cancel_is_taken_back_until_razorpay_was_told(signup: Signup) -> None:
    row = await signup.subscribed()
    with pytest.raises(NotFound):
        await keep_subscription(signup.context, ACTOR, signup.tenant_id)
    await _cancel(signup)
    await keep_subscription(signup.context, ACTOR, signup.tenant_id)
    row = await signup.read(row.id)
    assert (row.cancel_at_ms, row.cancel_state, row.cancel_reason) == (None, None, None)

    await _cancel(signup, at_period_end=False)
    await push_subscriptions(signup.context)
    with pytest.raises(NotFound):
        await keep_subscription(signup.context, ACTOR, signup.tenant_id)
    await signup.advance(days=40)
    assert (await signup.read(row.id)).status == "cancelled"


async def test_after_a_cancel_the_next_one_begins_where_the_paid_time_ends(signup: Signup) -> None:
    row = await signup.subscribed()
    await _cancel(signup, at_period_end=False)
    await push_subscriptions(signup.context)

    again = await signup.request("plus")

    assert (again.replaces, again.wanted_start_ms) == (None, row.current_end_ms)


async def test_a_halted_one_ends_before_its_next_cycle(signup: Signup) -> None:
    row = await signup.subscribed("team", "card_domestic")
    assert row.razorpay_id
    signup.razorpay.outcomes(row.razorpay_id, ["insufficient_funds"] * 8)
    await signup.advance(days=40)
    await push_subscriptions(signup.context)
    row = await signup.read(row.id)
    assert (row.status, row.cancel_state) == ("halted", None)
    assert row.current_end_ms

    await signup.advance(to_ms=row.current_end_ms - NOTICE_MS + 60_000)
    await push_subscriptions(signup.context)

    row = await signup.read(row.id)
    assert (row.status, row.cancel_state, row.cancel_reason) == ("cancelled", "done", "halted")


# --------------------------------------------------------------------------------------------- pause and resume


async def test_pause_and_resume(signup: Signup) -> None:
    row = await signup.subscribed()
    with pytest.raises(Conflict):
        await pause_subscription(signup.context, ACTOR, signup.tenant_id, resume=True)

    for resume, status in ((False, "paused"), (True, "active")):
        await pause_subscription(signup.context, ACTOR, signup.tenant_id, resume=resume)
        await push_subscriptions(signup.context)
        row = await signup.read(row.id)
        assert (row.status, row.wanted, row.error) == (status, None, None)


async def test_a_refused_resume_is_not_tried_again(signup: Signup) -> None:
    row = await signup.subscribed()
    assert row.razorpay_id
    signup.razorpay.customer(row.razorpay_id, "pause")
    await signup.fetch(row)

    await pause_subscription(signup.context, ACTOR, signup.tenant_id, resume=True)
    await push_subscriptions(signup.context)

    row = await signup.read(row.id)
    assert (row.status, row.wanted) == ("paused", None)
    assert row.error
    with pytest.raises(Conflict):
        await pause_subscription(signup.context, ACTOR, signup.tenant_id)
