"""Intents are stored first, pushed to Razorpay, and served as long as they are paid."""

from dataclasses import replace

import pytest

from billing.invoicing.period_close import close_due
from billing.models import Plan
from billing.subscriptions.intents import NOTICE_MS, cancel_subscription, subscribe
from billing.subscriptions.push import push_subscriptions
from core.clock import DAY_MS
from core.errors import Conflict, Invalid, NotFound
from tests.billing.signup import ACTOR, OPENS, Signup

GROSS_PAISE = 354_000
HOUR_MS = 3_600_000


async def _cancel(signup: Signup, *, at_period_end: bool = True) -> None:
    await cancel_subscription(signup.context, ACTOR, signup.tenant_id, at_period_end=at_period_end, reason="a wish")


# ------------------------------------------------------------------------------------------------- the first one


async def test_who_asks_twice_gets_the_first_link(signup: Signup) -> None:
    first = await signup.request()
    again = await signup.request()

    assert (again.id, again.short_url) == (first.id, first.short_url)
    assert first.short_url
    assert (first.state, first.status, first.is_open, first.gross_paise) == ("submitted", "created", True, GROSS_PAISE)
    (theirs,) = signup.at_razorpay()
    assert theirs["notes"] == {"tenant_id": str(signup.tenant_id), "naka_subscription": str(first.id)}


async def test_another_plan_is_refused_while_one_waits(signup: Signup) -> None:
    await signup.request()

    with pytest.raises(Conflict):
        await subscribe(signup.context, ACTOR, signup.tenant_id, "plus")

    await _cancel(signup)
    await push_subscriptions(signup.context)
    other = await signup.request("plus")
    assert (other.plan_code, other.is_open, other.replaces) == ("plus", True, None)
    assert [one["status"] for one in signup.at_razorpay()] == ["cancelled", "created"]


async def test_a_plan_without_a_price_is_not_subscribed_to(signup: Signup) -> None:
    with pytest.raises(Invalid):
        await subscribe(signup.context, ACTOR, signup.tenant_id, "free")
    with pytest.raises(NotFound):
        await subscribe(signup.context, ACTOR, signup.tenant_id, "nowhere")
    assert await signup.subscriptions() == []


async def test_what_razorpay_refuses_is_void_and_says_why(signup: Signup) -> None:
    signup.razorpay.fault(route="POST /v1/subscriptions", kind="error", status=400, code="BAD_REQUEST_ERROR")

    row = await signup.request()

    assert (row.state, row.is_open) == ("void", False)
    assert row.error
    assert (await signup.request()).state == "submitted", "it does not stand in the way of another"


async def test_one_cancelled_before_it_was_made_is_never_made(signup: Signup) -> None:
    wanted = await subscribe(signup.context, ACTOR, signup.tenant_id, "team")
    assert wanted.subscription_id
    await _cancel(signup)

    await push_subscriptions(signup.context)

    assert (await signup.read(wanted.subscription_id)).state == "void"
    assert signup.at_razorpay() == []


async def test_a_link_that_nobody_opened_expires(signup: Signup) -> None:
    row = await signup.request()
    await signup.advance(days=7, seconds=3_600)
    await push_subscriptions(signup.context)

    row = await signup.read(row.id)
    assert (row.status, row.is_open) == ("expired", False)
    assert (await signup.request()).id != row.id


async def test_a_trial_is_given_once_and_is_not_paid(signup: Signup) -> None:
    row = await signup.subscribed("trial")
    assert (row.status, row.paid_through_ms) == ("authenticated", None)
    assert row.start_ms
    assert abs(row.start_ms - (OPENS * 1000 + 14 * DAY_MS)) < HOUR_MS
    assert [one.kind for one in await signup.periods() if one.ends_ms == row.start_ms] == ["trial"]

    await _cancel(signup, at_period_end=False)
    await push_subscriptions(signup.context)
    again = await signup.request("trial")
    assert again.wanted_start_ms is None, "no second trial"


# ----------------------------------------------------------------------------------------------------- a change


@pytest.mark.slow
async def test_a_change_begins_where_the_paid_time_ends(signup: Signup) -> None:
    old = await signup.subscribed()
    new = await signup.request("plus")
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
    await push_subscriptions(signup.context)
    assert (await signup.read(old.id)).status == "cancelled"
    await signup.advance(to_ms=old.cancel_at_ms + HOUR_MS)
    await push_subscriptions(signup.context)
    await close_due(signup.context)
    assert [one["status"] for one in signup.at_razorpay()] == ["cancelled", "active"]
    assert [(bill.plan_code, bill.total_paise) for bill in await signup.bills() if bill.kind == "base"] == [
        ("team", GROSS_PAISE),
        ("plus", 590_000),
    ]


@pytest.mark.slow
async def test_a_change_that_nobody_authorised_leaves_the_old_one(signup: Signup) -> None:
    old = await signup.subscribed()
    new = await signup.request("plus")
    assert old.current_end_ms

    await signup.advance(to_ms=old.current_end_ms + HOUR_MS)
    await push_subscriptions(signup.context)

    old, new = await signup.read(old.id), await signup.read(new.id)
    assert (new.status, new.is_open) == ("expired", False)
    assert (old.status, old.paid_count, old.cancel_state) == ("active", 2, None)


async def test_the_same_plan_again_is_refused(signup: Signup) -> None:
    await signup.subscribed()
    with pytest.raises(Conflict):
        await subscribe(signup.context, ACTOR, signup.tenant_id, "team")


async def test_the_same_price_is_switched_at_once_without_razorpay(signup: Signup) -> None:
    row = await signup.subscribed("solid")

    wanted = await subscribe(signup.context, ACTOR, signup.tenant_id, "team")

    assert wanted.subscription_id is None
    assert (await signup.read(row.id)).plan_code == "team"
    cut, rest = [one for one in await signup.periods() if one.subscription_id == row.id and not one.foreseen]
    assert [(one.plan_code, one.terms["past_allowance"]) for one in (cut, rest)] == [
        ("solid", "block"),
        ("team", "bill"),
    ]
    assert (rest.period_id, rest.starts_ms) == (f"{cut.period_id}~2", cut.ends_ms)
    assert len(signup.at_razorpay()) == 1


@pytest.mark.slow
async def test_from_block_to_bill_at_another_price_bills_once_it_is_authorised(signup: Signup) -> None:
    row = await signup.subscribed("solid")
    async with signup.context.database.session() as session:
        meters = [{"meter": "output_tokens", "allowance": 9_000, "rate_paise": 7}]
        values = {"base_paise": 600_000, "past_allowance": "bill", "ceiling_paise": 100, "meters": meters}
        session.add(Plan(code="more", version=1, name="More", limits={}, **values))

    new = await signup.request("more")

    assert (new.replaces, new.is_open) == (row.id, True)
    (present,) = [one for one in await signup.periods() if one.subscription_id == row.id and not one.foreseen]
    assert (present.plan_code, present.terms["past_allowance"]) == ("solid", "block"), "a wish has no effect"

    assert new.razorpay_id
    signup.razorpay.authorise(new.razorpay_id, "upi")
    await signup.fetch(new)
    _, rest = [one for one in await signup.periods() if one.subscription_id == row.id and not one.foreseen]
    assert (rest.plan_code, rest.terms["past_allowance"]) == ("solid", "bill")
    (meter,) = rest.terms["meters"]
    assert (meter["allowance"], meter["rate_paise"]) == (1_000, 7), "the allowance that it began with, the new rate"

    await _cancel(signup, at_period_end=False)
    *_, last = [one for one in await signup.periods() if one.subscription_id == row.id and not one.foreseen]
    assert last.terms["past_allowance"] == "block", "a cancel undoes it"


async def test_in_the_last_cycle_the_same_plan_is_a_renewal(signup: Signup) -> None:
    row = await signup.subscribed()
    async with signup.context.database.session() as session:
        (await session.merge(row)).remaining_count = 0

    renewal = await signup.request()

    assert (renewal.replaces, renewal.wanted_start_ms) == (row.id, row.current_end_ms)


async def test_a_subscription_ends_on_the_default_plan(signup: Signup) -> None:
    settings = signup.context.settings.model_copy(update={"default_plan": "free"})
    lucky = Signup(replace(signup.context, settings=settings), signup.razorpay, signup.tenant_id)
    row = await lucky.request()
    await lucky.fetch(row)
    assert (await lucky.own_plan()) is None, "a wish that nobody authorised changes nothing"

    lucky.razorpay.authorise(str(row.razorpay_id), "upi")
    await lucky.fetch(row)
    await _cancel(lucky)

    assert await lucky.own_plan() == ("free", 1)
    last = (await lucky.schedule()).segments[-1]
    assert (last.plan_version, last.refusal) == ("free@1", None)
    assert await lucky.served_until() is None
