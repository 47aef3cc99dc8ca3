"""Every Razorpay fault at each call of a subscription: one effect in the end.

After the fault the duty runs a few more times, with enough time in between for lost answers. A list that lags longer
than LIST_LAG_MS leads to an extra subscription, which is cancelled, refunded and reported.
"""

import asyncio
from typing import Any

import pytest

from billing.collection.collection import collect
from billing.reconciliation import reconcile_razorpay
from billing.subscriptions.intents import cancel_subscription, pause_subscription, subscribe
from billing.subscriptions.push import LIST_LAG_MS, push_subscriptions, wait_for_other_push
from billing.webhooks.processing import process_events
from tests.billing.deliveries import event_body, store_event
from tests.billing.signup import ACTOR, Signup

GROSS_PAISE = 354_000
MAKE, PLAN, LIST = "POST /v1/subscriptions", "POST /v1/plans", "GET /v1/subscriptions"
TROUBLES: dict[str, dict[str, Any]] = {
    "json 500 before": {"kind": "error", "when": "before"},
    "json 500 after": {"kind": "error", "when": "after"},
    "html before": {"kind": "html", "when": "before"},
    "html after": {"kind": "html", "when": "after"},
    "throttled": {"kind": "throttle"},
    "cut before": {"kind": "cut", "when": "before"},
    "cut after": {"kind": "cut", "when": "after"},
    "slow": {"kind": "slow", "when": "after", "delay_s": 1.5},
}
TWICE: dict[str, dict[str, Any]] = TROUBLES | {
    f"{name}, twice": {**TROUBLES[name], "times": 2} for name in ("json 500 after", "cut before", "cut after")
}
LOOKS = {name: TROUBLES[name] for name in ("json 500 before", "html before", "throttled", "cut after")}
LAGS_S = LIST_LAG_MS // 1000
every_trouble = pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)


async def _ends_with_one(signup: Signup) -> None:
    """Checks that there is one subscription here, the same one at Razorpay, and that it works."""
    (row,), (theirs,) = await signup.subscriptions(), signup.at_razorpay()
    assert (row.state, row.razorpay_id, row.status, row.error) == ("submitted", theirs["id"], "created", None)
    assert row.short_url
    signup.razorpay.authorise(theirs["id"])
    await signup.fetch(row)
    assert (await signup.read(row.id)).status == "active"
    assert signup.razorpay.money()["totals"]["kept"] == GROSS_PAISE
    assert await signup.findings() == []
    assert (await reconcile_razorpay(signup.context)).is_clean


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_a_subscription_is_made_once(signup: Signup, trouble: dict[str, Any]) -> None:
    signup.razorpay.fault(route=MAKE, **trouble)

    row = await signup.request()
    assert (await signup.request()).id == row.id, "who asks again while it is in doubt gets the same"
    await signup.settle()

    await _ends_with_one(signup)


@pytest.mark.slow
async def test_a_call_that_nobody_can_be_in_any_more_is_not_waited_for(signup: Signup) -> None:
    signup.razorpay.fault(route=MAKE, kind="cut", when="before")
    row = await signup.request()
    assert row.state == "submitting"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await wait_for_other_push(signup.context, signup.tenant_id, row.id, patience_s=60)
    await signup.advance(seconds=31)
    async with asyncio.timeout(5):
        await wait_for_other_push(signup.context, signup.tenant_id, row.id, patience_s=60)


@every_trouble
async def test_a_plan_in_doubt_holds_a_subscription_up_and_no_more(signup: Signup, trouble: dict[str, Any]) -> None:
    signup.razorpay.fault(route=PLAN, **trouble)

    await signup.request()
    await signup.settle()

    await _ends_with_one(signup)
    assert len(signup.razorpay.ledger()["plans"]) == 1


@pytest.mark.parametrize("trouble", LOOKS.values(), ids=LOOKS)
async def test_a_look_that_fails_makes_nothing(signup: Signup, trouble: dict[str, Any]) -> None:
    signup.razorpay.fault(route=MAKE, kind="cut", when="after")
    signup.razorpay.fault(route=LIST, **trouble | {"times": 3})

    await signup.request()
    await signup.settle(rounds=5)

    await _ends_with_one(signup)


@every_trouble
async def test_a_cancel_is_done(signup: Signup, trouble: dict[str, Any]) -> None:
    row = await signup.subscribed()
    signup.razorpay.fault(route="POST /v1/subscriptions/*/cancel", **trouble)

    await cancel_subscription(signup.context, ACTOR, signup.tenant_id, at_period_end=False, reason="a wish")
    await signup.settle()

    row = await signup.read(row.id)
    assert (row.status, row.cancel_state, row.error) == ("cancelled", "done", None)
    assert await signup.served_until() == row.paid_through_ms
    assert await signup.findings() == []


@every_trouble
@pytest.mark.parametrize("resume", [False, True], ids=["pause", "resume"])
async def test_pause_and_resume_are_done(signup: Signup, trouble: dict[str, Any], resume: bool) -> None:  # noqa: FBT001
    row = await signup.subscribed()
    if resume:
        await pause_subscription(signup.context, ACTOR, signup.tenant_id)
        await push_subscriptions(signup.context)
    signup.razorpay.fault(route=f"POST /v1/subscriptions/*/{'resume' if resume else 'pause'}", **trouble)

    await pause_subscription(signup.context, ACTOR, signup.tenant_id, resume=resume)
    await signup.settle()

    row = await signup.read(row.id)
    assert (row.status, row.wanted, row.error) == ("active" if resume else "paused", None, None)


@pytest.mark.parametrize("trouble", ["cut", "error", "html"])
async def test_a_list_that_lags_is_waited_for(signup: Signup, trouble: str) -> None:
    signup.razorpay.fault(route=MAKE, kind=trouble, when="after")
    signup.razorpay.fault(route=LIST, kind="lag", delay_s=LAGS_S - 60, times=None)

    await signup.request()
    for _ in range(5):
        await signup.advance(seconds=LAGS_S / 5 + 1)
        await push_subscriptions(signup.context)

    signup.razorpay.clear_faults()
    await _ends_with_one(signup)


@pytest.mark.slow
@pytest.mark.parametrize("paid", [False, True], ids=["unpaid", "paid"])
@pytest.mark.parametrize("told_by", ["a webhook", "reconciliation"])
async def test_one_that_turns_up_late_is_sent_away(signup: Signup, told_by: str, paid: bool) -> None:  # noqa: FBT001
    signup.razorpay.fault(route=MAKE, kind="cut", when="after")
    signup.razorpay.fault(route=LIST, kind="lag", delay_s=3 * LAGS_S, times=None)
    await signup.request()
    await signup.settle(rounds=1)
    first, second = signup.at_razorpay()
    (row,) = await signup.subscriptions()
    assert row.razorpay_id == second["id"], "the list was waited for, and then another made"
    signup.razorpay.authorise(second["id"])
    if paid:
        signup.razorpay.authorise(first["id"])

    signup.razorpay.clear_faults()
    for _ in range(2):
        if told_by == "a webhook":
            await store_event(signup.context, event_body(subscription={"id": first["id"]}))
            await store_event(signup.context, event_body(subscription={"id": second["id"]}))
            await process_events(signup.context)
        else:
            await reconcile_razorpay(signup.context)
        await collect(signup.context)

    assert [one["status"] for one in signup.at_razorpay()] == ["cancelled", "active"]
    assert (await signup.read(row.id)).status == "active"
    assert [bill.state for bill in await signup.bills()] == ["paid"]
    assert [one.amount_paise for one in await signup.refunds()] == ([GROSS_PAISE] if paid else [])
    assert signup.razorpay.money()["totals"]["kept"] == GROSS_PAISE
    assert await signup.findings() == ["extra_subscription"]
    assert (await reconcile_razorpay(signup.context)).is_clean


@pytest.mark.slow
async def test_a_wish_survives_a_razorpay_that_is_away(signup: Signup) -> None:
    signup.razorpay.fault(route="*", kind="error", status=503, times=None)
    row = await signup.request()
    assert (row.state, row.is_open, row.razorpay_id) == ("intended", True, None)
    await signup.settle(rounds=2)

    signup.razorpay.clear_faults()
    await signup.settle(rounds=2)

    await _ends_with_one(signup)


async def test_one_cancelled_while_it_is_in_doubt_is_cancelled_once_found(signup: Signup) -> None:
    signup.razorpay.fault(route=MAKE, kind="cut", when="after")
    await signup.request()
    await cancel_subscription(signup.context, ACTOR, signup.tenant_id, at_period_end=False, reason="a wish")

    await signup.settle()

    (row,), (theirs,) = await signup.subscriptions(), signup.at_razorpay()
    assert (row.state, row.status, row.cancel_state, row.is_open) == ("submitted", "cancelled", "done", False)
    assert theirs["status"] == "cancelled"
    assert (await subscribe(signup.context, ACTOR, signup.tenant_id, "plus")).is_new
