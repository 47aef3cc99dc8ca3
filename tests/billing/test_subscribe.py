"""What a tenant wants of its subscription is stored first, told to Razorpay, and served for as long as it is paid."""

import pytest

from billing.checkout import authorised
from billing.closes import close_due
from billing.desk import DAY_MS
from billing.mirror import refresh
from billing.models import Plan
from billing.submission import drive
from billing.subscribe import NOTICE_MS, cancel, keep, live_of, pause, subscribe
from core.clock import now_ms
from core.errors import Conflict, Invalid, NotFound
from tests.billing.signup import ACTOR, OPENS, Signup

GROSS_PAISE = 354_000
HOUR_MS = 3_600_000


async def _cancel(signup: Signup, *, at_period_end: bool = True) -> None:
    await cancel(signup.desk, ACTOR, signup.tenant_id, at_period_end=at_period_end, reason="a wish")


# ------------------------------------------------------------------------------------------------- the first one


async def test_who_asks_twice_gets_the_first_link(signup: Signup) -> None:
    first = await signup.want()
    again = await signup.want()

    assert (again.id, again.short_url) == (first.id, first.short_url)
    assert first.short_url
    assert (first.state, first.status, first.is_open, first.gross_paise) == ("submitted", "created", True, GROSS_PAISE)
    (theirs,) = signup.theirs()
    assert theirs["notes"] == {"tenant_id": str(signup.tenant_id), "naka_subscription": str(first.id)}


async def test_another_plan_is_refused_while_one_waits(signup: Signup) -> None:
    await signup.want()

    with pytest.raises(Conflict):
        await subscribe(signup.desk, ACTOR, signup.tenant_id, "plus")

    await _cancel(signup)
    await drive(signup.desk)
    other = await signup.want("plus")
    assert (other.plan_code, other.is_open, other.replaces) == ("plus", True, None)
    assert [one["status"] for one in signup.theirs()] == ["cancelled", "created"]


async def test_a_plan_without_a_price_is_not_subscribed_to(signup: Signup) -> None:
    with pytest.raises(Invalid):
        await subscribe(signup.desk, ACTOR, signup.tenant_id, "free")
    with pytest.raises(NotFound):
        await subscribe(signup.desk, ACTOR, signup.tenant_id, "nowhere")
    assert await signup.subscriptions() == []


async def test_what_razorpay_refuses_is_void_and_says_why(signup: Signup) -> None:
    signup.razorpay.fault(route="POST /v1/subscriptions", kind="error", status=400, code="BAD_REQUEST_ERROR")

    row = await signup.want()

    assert (row.state, row.is_open) == ("void", False)
    assert row.error
    assert (await signup.want()).state == "submitted", "it does not stand in the way of another"


async def test_one_cancelled_before_it_was_made_is_never_made(signup: Signup) -> None:
    wanted = await subscribe(signup.desk, ACTOR, signup.tenant_id, "team")
    assert wanted.subscription_id
    await _cancel(signup)

    await drive(signup.desk)

    assert (await signup.read(wanted.subscription_id)).state == "void"
    assert signup.theirs() == []


async def test_a_link_that_nobody_opened_expires(signup: Signup) -> None:
    row = await signup.want()
    await signup.advance(days=7, seconds=3_600)
    await drive(signup.desk)

    row = await signup.read(row.id)
    assert (row.status, row.is_open) == ("expired", False)
    assert (await signup.want()).id != row.id


async def test_a_trial_is_given_once_and_is_not_paid(signup: Signup) -> None:
    row = await signup.subscribed("trial")
    assert (row.status, row.paid_through_ms) == ("authenticated", None)
    assert row.start_ms
    assert abs(row.start_ms - (OPENS * 1000 + 14 * DAY_MS)) < HOUR_MS
    assert [one.kind for one in await signup.periods() if one.ends_ms == row.start_ms] == ["trial"]

    await _cancel(signup, at_period_end=False)
    await drive(signup.desk)
    again = await signup.want("trial")
    assert again.wanted_start_ms is None, "no second trial"


# ----------------------------------------------------------------------------------------------------- a change


async def test_a_change_begins_where_the_paid_time_ends(signup: Signup) -> None:
    old = await signup.subscribed()
    new = await signup.want("plus")
    assert (new.replaces, new.wanted_start_ms) == (old.id, old.current_end_ms)
    assert new.expire_by_ms == old.current_end_ms
    assert (await signup.read(old.id)).cancel_state is None, "the old one goes on until the new one is authorised"

    assert new.razorpay_id
    signup.razorpay.authorise(new.razorpay_id, "upi")
    await signup.fetch(new)
    old = await signup.read(old.id)
    assert (old.cancel_state, old.cancel_at_ms, old.cancel_reason) == ("intended", old.current_end_ms, "replaced")

    assert old.cancel_at_ms
    await signup.advance(to_ms=old.cancel_at_ms - NOTICE_MS + 60_000)
    await drive(signup.desk)
    assert (await signup.read(old.id)).status == "cancelled"
    await signup.advance(to_ms=old.cancel_at_ms + HOUR_MS)
    await drive(signup.desk)
    await close_due(signup.desk)
    assert [one["status"] for one in signup.theirs()] == ["cancelled", "active"]
    assert [(bill.plan_code, bill.total_paise) for bill in await signup.bills() if bill.kind == "base"] == [
        ("team", GROSS_PAISE),
        ("plus", 590_000),
    ]


async def test_a_change_that_nobody_authorised_leaves_the_old_one(signup: Signup) -> None:
    old = await signup.subscribed()
    new = await signup.want("plus")
    assert old.current_end_ms

    await signup.advance(to_ms=old.current_end_ms + HOUR_MS)
    await drive(signup.desk)

    old, new = await signup.read(old.id), await signup.read(new.id)
    assert (new.status, new.is_open) == ("expired", False)
    assert (old.status, old.paid_count, old.cancel_state) == ("active", 2, None)


async def test_the_same_plan_again_is_refused(signup: Signup) -> None:
    await signup.subscribed()
    with pytest.raises(Conflict):
        await subscribe(signup.desk, ACTOR, signup.tenant_id, "team")


async def test_the_same_price_is_switched_at_once_without_razorpay(signup: Signup) -> None:
    row = await signup.subscribed("solid")

    wanted = await subscribe(signup.desk, ACTOR, signup.tenant_id, "team")

    assert wanted.subscription_id is None
    assert (await signup.read(row.id)).plan_code == "team"
    (present,) = [one for one in await signup.periods() if one.subscription_id == row.id and not one.foreseen]
    assert (present.plan_code, present.terms["past_allowance"]) == ("team", "bill")
    assert len(signup.theirs()) == 1


async def test_from_block_to_bill_at_another_price_bills_at_once(signup: Signup) -> None:
    row = await signup.subscribed("solid")
    async with signup.desk.database.session() as session:
        meters = [{"meter": "output_tokens", "allowance": 9_000, "rate_paise": 7}]
        values = {"base_paise": 600_000, "past_allowance": "bill", "ceiling_paise": 100, "meters": meters}
        session.add(Plan(code="more", version=1, name="More", limits={}, **values))

    new = await signup.want("more")

    assert (new.replaces, new.is_open) == (row.id, True)
    (present,) = [one for one in await signup.periods() if one.subscription_id == row.id and not one.foreseen]
    assert (present.plan_code, present.terms["past_allowance"]) == ("solid", "bill")
    (meter,) = present.terms["meters"]
    assert (meter["allowance"], meter["rate_paise"]) == (1_000, 7), "the allowance that it began with, the new rate"


async def test_in_the_last_cycle_the_same_plan_is_a_renewal(signup: Signup) -> None:
    row = await signup.subscribed()
    async with signup.desk.database.session() as session:
        (await session.merge(row)).remaining_count = 0

    renewal = await signup.want()

    assert (renewal.replaces, renewal.wanted_start_ms) == (row.id, row.current_end_ms)


# ------------------------------------------------------------------------------------------------------ the end


async def test_a_cancel_at_the_end_is_told_two_days_before(signup: Signup) -> None:
    row = await signup.subscribed()
    await _cancel(signup)
    await drive(signup.desk)
    row = await signup.read(row.id)
    assert (row.status, row.cancel_state, row.cancel_at_ms) == ("active", "intended", row.current_end_ms)
    assert row.current_end_ms

    await signup.advance(to_ms=row.current_end_ms - NOTICE_MS - HOUR_MS)
    await drive(signup.desk)
    assert (await signup.read(row.id)).status == "active"
    await signup.advance(seconds=2 * 3_600)
    await drive(signup.desk)

    row = await signup.read(row.id)
    assert (row.status, row.cancel_state) == ("cancelled", "done")
    assert await signup.served_until() == row.paid_through_ms, "the paid time is served"
    await signup.advance(days=40)
    await drive(signup.desk)
    assert len([bill for bill in await signup.bills() if bill.kind == "base"]) == 1


async def test_a_cancel_now_is_told_at_once_and_the_paid_month_is_served(signup: Signup) -> None:
    row = await signup.subscribed()
    await _cancel(signup, at_period_end=False)
    await drive(signup.desk)

    row = await signup.read(row.id)
    assert (row.status, row.cancel_state) == ("cancelled", "done")
    assert await signup.served_until() == row.paid_through_ms
    with pytest.raises(NotFound):
        await _cancel(signup)


async def test_a_cancel_is_taken_back_until_razorpay_was_told(signup: Signup) -> None:
    row = await signup.subscribed()
    with pytest.raises(NotFound):
        await keep(signup.desk, ACTOR, signup.tenant_id)
    await _cancel(signup)
    await keep(signup.desk, ACTOR, signup.tenant_id)
    row = await signup.read(row.id)
    assert (row.cancel_at_ms, row.cancel_state, row.cancel_reason) == (None, None, None)

    await _cancel(signup, at_period_end=False)
    await drive(signup.desk)
    with pytest.raises(NotFound):
        await keep(signup.desk, ACTOR, signup.tenant_id)
    await signup.advance(days=40)
    assert (await signup.read(row.id)).status == "cancelled"


async def test_after_a_cancel_the_next_one_begins_where_the_paid_time_ends(signup: Signup) -> None:
    row = await signup.subscribed()
    await _cancel(signup, at_period_end=False)
    await drive(signup.desk)

    again = await signup.want("plus")

    assert (again.replaces, again.wanted_start_ms) == (None, row.current_end_ms)


async def test_a_halted_one_ends_before_its_next_cycle(signup: Signup) -> None:
    row = await signup.subscribed("team", "card_domestic")
    assert row.razorpay_id
    signup.razorpay.outcomes(row.razorpay_id, ["insufficient_funds"] * 8)
    await signup.advance(days=40)
    await drive(signup.desk)
    row = await signup.read(row.id)
    assert (row.status, row.cancel_state) == ("halted", None)
    assert row.current_end_ms

    await signup.advance(to_ms=row.current_end_ms - NOTICE_MS + 60_000)
    await drive(signup.desk)

    row = await signup.read(row.id)
    assert (row.status, row.cancel_state, row.cancel_reason) == ("cancelled", "done", "halted")


# --------------------------------------------------------------------------------------------- pause and resume


async def test_pause_and_resume(signup: Signup) -> None:
    row = await signup.subscribed()
    with pytest.raises(Conflict):
        await pause(signup.desk, ACTOR, signup.tenant_id, resume=True)

    for resume, status in ((False, "paused"), (True, "active")):
        await pause(signup.desk, ACTOR, signup.tenant_id, resume=resume)
        await drive(signup.desk)
        row = await signup.read(row.id)
        assert (row.status, row.wanted, row.error) == (status, None, None)


async def test_a_refused_resume_is_not_tried_again(signup: Signup) -> None:
    row = await signup.subscribed()
    assert row.razorpay_id
    signup.razorpay.customer(row.razorpay_id, "pause")
    await signup.fetch(row)

    await pause(signup.desk, ACTOR, signup.tenant_id, resume=True)
    await drive(signup.desk)

    row = await signup.read(row.id)
    assert (row.status, row.wanted) == ("paused", None)
    assert row.error
    with pytest.raises(Conflict):
        await pause(signup.desk, ACTOR, signup.tenant_id)


# ------------------------------------------------------------------------------------------------------ checkout


async def test_the_browsers_word_activates_without_a_webhook(signup: Signup) -> None:
    row = await signup.want()
    assert row.razorpay_id
    said = signup.razorpay.authorise(row.razorpay_id)
    payment, signature = said["razorpay_payment_id"], said["razorpay_signature"]

    for forged in (
        (payment, row.razorpay_id, "0" * 64),
        (payment, row.razorpay_id, ""),
        ("pay_TmA4kQ8sLw2ZxR", row.razorpay_id, signature),
        (payment, "sub_TmA1c9RkVe7HbN", signature),
    ):
        with pytest.raises(Invalid):
            await authorised(signup.desk, signup.tenant_id, *forged)
    before = await signup.read(row.id)
    assert (before.status, before.applied) == ("created", 0)

    now = await authorised(signup.desk, signup.tenant_id, payment, row.razorpay_id, signature)

    assert (now.status, now.is_open, now.paid_count) == ("active", False, 1)
    assert now.paid_through_ms
    assert now.paid_through_ms > now_ms()
    assert (await signup.schedule()).periods


async def test_anothers_signature_is_not_ours(signup: Signup) -> None:
    other = await signup.neighbour()
    theirs = await other.want()
    assert theirs.razorpay_id
    said = signup.razorpay.authorise(theirs.razorpay_id)

    with pytest.raises(Invalid):
        await authorised(
            signup.desk, signup.tenant_id, said["razorpay_payment_id"], theirs.razorpay_id, said["razorpay_signature"]
        )

    assert (await other.read(theirs.id)).status == "created"
    await refresh(signup.desk, other.tenant_id, theirs.id)
    assert live_of(await other.subscriptions()) is not None

