"""The status of a subscription in the words of its page."""

from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from api.pages.account import wording
from api.pages.account.subscription_status import state_of
from api.pages.site import Here
from api.services.billing.account import Facts
from billing.access.lifecycle import BILL_OVERDUE, PAYMENT_REQUIRED, SUBSCRIPTION_REQUIRED
from billing.models import Plan, Subscription
from metering.quota.limits import PlanLimits, resolve
from metering.quota.schedule import FOREVER_MS, Refusal, Stretch, Timeline

NOW = 1_790_000_000_000
DAY = 86_400_000
HERE = Here(ZoneInfo("Asia/Kolkata"))
NOTHING = resolve(PlanLimits(), user=None, tenant=None, plan_version=None)
FREE = Plan(code="free", version=1, name="Free")
PAY = "https://rzp.io/i/abc"


def timeline(*later: tuple[int, Refusal | None]) -> Timeline:
    """What holds from each moment on; before the first, nothing is refused."""
    starts = [(-FOREVER_MS, None), *later]
    ends = [at for at, _ in starts[1:]] + [FOREVER_MS]
    return Timeline(tuple(Stretch(at, end, NOTHING, refusal) for (at, refusal), end in zip(starts, ends, strict=True)))


def subscription(**fields: Any) -> Subscription:
    given = {"status": "active", "paid_through_ms": NOW + DAY, "current_end_ms": NOW + DAY, "remaining_count": 5}
    return Subscription(tenant_id=UUID(int=1), id=UUID(int=2), short_url=PAY, **(given | fields))


def state(live: Subscription | None, *later: tuple[int, Refusal | None], **more: Any) -> wording.State:
    facts: dict[str, Any] = {"waiting": None, "plan": None, **more}
    return state_of(Facts(live=live, timeline=timeline(*later), at_ms=NOW, **facts), HERE)


def test_an_overdue_bill_is_to_be_paid() -> None:
    found = state(subscription(), (NOW - 1, BILL_OVERDUE))
    assert (found.tag, found.tone) == ("halted", "bad")
    assert found.action == ("/account/bills?state=open", "Pay overdue bill")


def test_an_unpaid_fee_leads_to_razorpays_page() -> None:
    assert state(subscription(status="halted"), (NOW, PAYMENT_REQUIRED)).action == (PAY, "Change payment method")
    assert state(None, (NOW, SUBSCRIPTION_REQUIRED)).tag == "ended"


@pytest.mark.parametrize("fields", [{"status": "pending"}, {"status": "active", "paid_through_ms": NOW - DAY}])
def test_grace_says_until_when(fields: dict[str, Any]) -> None:
    found = state(subscription(**fields), (NOW + 3 * DAY, PAYMENT_REQUIRED))
    assert found.tag == "grace"
    assert f"Requests continue until {HERE.day(NOW + 3 * DAY)}." in found.text


@pytest.mark.parametrize(
    ("fields", "tag"),
    [
        ({}, "active"),
        ({"cancel_at_ms": NOW + DAY}, "ends"),
        ({"status": "paused"}, "paused"),
        ({"status": "authenticated", "paid_through_ms": None, "start_ms": NOW + DAY}, "authorised"),
        ({"remaining_count": 0}, "last month"),
    ],
)
def test_what_runs(fields: dict[str, Any], tag: str) -> None:
    found = state(subscription(**fields))
    assert found.tag == tag
    assert HERE.day(NOW + DAY) in found.text or tag == "paused"


def test_without_a_subscription() -> None:
    assert state(None).tag == "no plan"
    assert "You're on the plan Free" in state(None, plan=FREE).text
    assert state(None, waiting=subscription()).tag == "to be authorised"


def test_alerts_and_limits_in_words() -> None:
    data = {"kind": "allowance", "meter": "input_tokens", "window": "period", "level": 80, "limit": 500_000}
    say = wording.alert
    assert say("usage.threshold_reached", data) == "80 % used of the allowance of 5,00,000 input tokens"
    one = data | {"kind": "limit", "user_id": "x", "meter": "spend", "window": "day", "limit": 2_500_000}
    assert say("usage.threshold_reached", one) == "80 % used of a user's limit of $2.50 of model cost a day"
    ceiling = data | {"kind": "ceiling", "meter": "charge", "limit": 500_000}
    assert say("usage.threshold_reached", ceiling) == "80 % used of the ceiling of ₹5,000 of overage"
    assert wording.bound("requests", "minute", 60) == "60 requests a minute"
    allowances = {1_000: "1,000", 999_999: "9,99,999", 3_000_000: "3 million", 2_500_000: "2.5 million"}
    for value, said in allowances.items():
        assert wording.allowance("output_tokens", value) == f"{said} output tokens"
    assert wording.allowance("output_tokens", 2_550_000) == "25,50,000 output tokens"
    assert wording.allowance("spend", 5_000_000) == "$5.00 of model cost"
    assert (wording.money(299_900), wording.money(110_801)) == ("₹2,999", "₹1,108.01")
