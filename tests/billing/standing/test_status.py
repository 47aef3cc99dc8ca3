"""The status of a tenant's money and its words, from facts."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from billing.standing.status import (
    Access,
    Cause,
    Debt,
    FeeFacts,
    Funds,
    Given,
    MoneyState,
    MoneyStatus,
    StandingFacts,
    status_of,
)
from billing.standing.words import Said, Step, say, say_to_user

NOW = 1_790_000_000_000  # 21 Sep 2026, 18:43 in India
DAY = 86_400_000
ZONE = ZoneInfo("Asia/Kolkata")
FULL, REFUSED = Given(0, Access.FULL, "Team"), Given(0, Access.REFUSED, code="bill_overdue")
REDUCED = Given(0, Access.REDUCED, "Free")
PAY = "https://rzp.io/i/abc"


def fee(**fields: Any) -> FeeFacts:
    given: dict[str, Any] = {"status": "active", "paid_through_ms": NOW + 9 * DAY, "pay_url": PAY} | fields
    return FeeFacts(gross_paise=353_882, plan="Team", **given)


def status(*given: Given, **facts: Any) -> MoneyStatus:
    given_facts: dict[str, Any] = {"plan": "Team", "fee": fee(), "waits": False, "debts": []} | facts
    return status_of(StandingFacts(given=given or (FULL,), **given_facts), NOW)


def said(*given: Given, **facts: Any) -> Said:
    return say(status(*given, **facts), ZONE)


LATE, SOON = Debt("NK/1", 59_000, NOW - 3 * DAY, PAY), Debt("NK/2", 11_800, NOW + DAY)


def test_an_overdue_bill_says_how_much_since_when_what_is_limited_and_what_restores_it() -> None:
    found = status(REFUSED, debts=[LATE, SOON])
    assert (found.state, found.cause, found.since_ms) == (MoneyState.OVERDUE, Cause.BILL, LATE.due_ms)
    assert (found.due_paise, found.overdue_paise, found.due_by_ms) == (70_800, 59_000, SOON.due_ms)
    assert found.pay_url == PAY, "one payment settles all that is overdue"
    shown = say(found, ZONE)
    assert shown == Said(
        "overdue",
        "bad",
        "₹590 for usage is overdue since 18 Sep 2026.",
        "Requests are refused.",
        "They continue as soon as it is paid.",
        Step.PAY_BILL,
    )
    assert status(REFUSED, debts=[LATE, LATE]).pay_url is None


def test_an_overdue_account_with_smaller_limits_is_not_active() -> None:
    shown = said(REDUCED, debts=[LATE])
    assert shown.tag == "overdue"
    assert shown.limits == "Until it is paid, the limits of Free apply."
    assert shown.remedy == "The limits of Team return as soon as it is paid."


def test_a_halted_subscription_is_not_said_to_be_retried() -> None:
    late = fee(status="halted", paid_through_ms=NOW - 4 * DAY, retry_ms=NOW + 20 * DAY)
    refused = Given(0, Access.REFUSED, code="payment_required")
    found = status(refused, fee=late)
    assert (found.state, found.cause, found.overdue_paise, found.retry_ms) == ("halted", "fee", 353_882, None)
    shown = say(found, ZONE)
    assert "₹3,538.82 is overdue since 17 Sep 2026. Razorpay could not collect it and has stopped trying." in shown.text
    assert shown.limits == "Requests are refused."
    assert "again" not in shown.whole
    assert (shown.step, found.pay_url) == (Step.PAY_FEE, None), "a change of the method collects nothing any more"


def test_a_pending_fee_says_when_razorpay_tries_again_and_until_when_requests_continue() -> None:
    late = fee(status="pending", paid_through_ms=NOW - DAY, retry_ms=NOW + DAY)
    later = Given(NOW + 3 * DAY, Access.REFUSED, code="payment_required")
    found = status(FULL, later, fee=late)
    assert found.state is MoneyState.OVERDUE
    shown = say(found, ZONE)
    assert "Razorpay tries again on 22 Sep 2026." in shown.text
    assert shown.limits == "Requests continue until 24 Sep 2026."
    assert shown.remedy == "Pay before then, and nothing changes."
    assert found.pay_url == PAY, "a change of the method collects it"


def test_a_fee_that_is_being_collected_did_not_fail() -> None:
    shown = said(fee=fee(paid_through_ms=NOW - 60_000))
    assert (shown.tag, shown.tone) == ("due", "warn")
    assert shown.text == "Razorpay is collecting the fee of this month."


def test_a_bill_that_is_not_late_is_due() -> None:
    shown = said(debts=[SOON])
    assert (shown.tag, shown.text) == ("due", "₹118 for usage is due by 22 Sep 2026.")


def test_a_bill_that_a_mandate_pays_asks_for_nothing() -> None:
    debited = Debt("NK/3", 11_800, NOW + DAY, None, is_debited=True)
    shown = said(debts=[debited])
    assert shown.text.startswith("₹118 for usage is due by 22 Sep 2026. It is debited by your mandate:")
    assert shown.step is None
    assert said(debts=[debited, SOON]).step is Step.PAY_BILL


@pytest.mark.parametrize(
    ("facts", "tag", "text"),
    [
        ({}, "active", "Paid until 30 Sep 2026."),
        ({"fee": fee(cancel_at_ms=NOW + DAY)}, "cancelled", "Ends on 22 Sep 2026. No further charges."),
        (
            {"fee": fee(status="authenticated", paid_through_ms=None, start_ms=NOW + DAY), "trial_ends_ms": NOW + DAY},
            "trial",
            "The trial ends on 22 Sep 2026; the first payment is made then.",
        ),
        (
            {"fee": fee(status="authenticated", paid_through_ms=None, start_ms=NOW + DAY)},
            "authorised",
            "The first month starts on 22 Sep 2026.",
        ),
        (
            {"fee": fee(is_last_month=True, current_end_ms=NOW + DAY)},
            "last month",
            "Ends on 22 Sep 2026. Subscribe again to continue.",
        ),
        ({"fee": fee(status="paused")}, "paused", "The subscription is paused: no charges."),
        ({"fee": None}, "no subscription", "You're on the plan Team, without a subscription."),
        (
            {"fee": None, "waits": True},
            "to be authorised",
            "The subscription starts when you authorise it at Razorpay.",
        ),
        (
            {"fee": None, "plan": None},
            "no plan",
            "This account has no plan: the default limits apply and nothing is billed.",
        ),
        ({"funds": Funds(0)}, "empty", "The wallet is empty."),
        ({"funds": Funds(4_900, 5_000)}, "low", "The wallet has ₹49 left, before tax."),
        ({"funds": Funds(5_000, 5_000)}, "active", "Paid until 30 Sep 2026."),
    ],
)
def test_each_state_in_words(facts: dict[str, Any], tag: str, text: str) -> None:
    shown = said(**facts)
    assert (shown.tag, shown.text) == (tag, text)


def test_an_ended_subscription_leads_to_the_plans() -> None:
    shown = said(Given(0, Access.REFUSED, code="subscription_required"), fee=None, plan=None)
    assert (shown.tag, shown.step, shown.limits) == ("ended", Step.CHOOSE_PLAN, "Requests are refused.")


def test_a_user_who_is_no_admin_reads_no_amounts() -> None:
    shown = say_to_user(status(REFUSED, debts=[LATE]), ZONE)
    assert shown.whole == "A payment of your account is overdue. Requests are refused. Ask your admin to pay it."
    assert say_to_user(status(), ZONE).whole == ""
