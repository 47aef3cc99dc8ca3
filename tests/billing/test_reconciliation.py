"""Reconciliation with Razorpay: changes without a webhook are fetched and applied, other differences reported."""

import httpx2
import pytest
from sqlalchemy import select

from billing.collection.collection import collect
from billing.invoicing.period_close import close_due
from billing.models import BillingFinding, Charge, ComparedDay, Payment, RazorpayReconciliation
from billing.razorpay.errors import RazorpayError
from billing.reconciliation import WINDOW_DAYS, RazorpayReport, reconcile_razorpay
from billing.reconciliation.report import PARALLEL
from billing.reconciliation.windows import compared_since, in_order, windows
from core.clock import DAY_MS, now_ms
from core.ids import uuid7
from tests.billing.mandated import MandatedTenant
from tests.billing.operator import OperatorSetup
from tests.billing.signup import Signup
from tests.simulated_razorpay import KEY_ID, KEY_SECRET

GROSS_PAISE = 354_000
USED_TOKENS = 500
OVERAGE_PAISE = USED_TOKENS * 100 * 118 // 100


async def _is_clean_again(signup: Signup, *findings: str) -> None:
    """A second run finds no difference, and the collected amounts agree."""
    again = await reconcile_razorpay(signup.context, days=300)
    assert (again.healed, again.unexplained) == ([], [])
    totals = signup.razorpay.money()["totals"]
    assert (again.collected_paise, again.refunded_paise) == (totals["collected"], totals["refunded"])
    assert await signup.findings() == [*findings]


def _kinds(found: RazorpayReport) -> list[str]:
    assert found.is_clean, found.unexplained
    return sorted({one["kind"] for one in found.healed})


async def _link(signup: Signup) -> Charge:
    """A subscriber with an unpaid overage bill."""
    row = await signup.subscribed()
    (present,) = [one for one in await signup.periods() if one.subscription_id == row.id and not one.foreseen]
    await OperatorSetup(signup.context).add_usage(
        signup.tenant_id, present.period_id, output_tokens=1_000 + USED_TOKENS
    )
    await signup.advance(to_ms=present.ends_ms + 3_600_000)
    await signup.fetch(row)
    await close_due(signup.context)
    await collect(signup.context)
    charge: Charge = (await signup.all(Charge))[0]
    assert (charge.state, charge.amount_paise) == ("submitted", OVERAGE_PAISE)
    return charge


async def test_an_authorisation_that_nobody_told_of(signup: Signup) -> None:
    row = await signup.request()
    assert row.razorpay_id
    signup.razorpay.authorise(row.razorpay_id)

    assert _kinds(await reconcile_razorpay(signup.context)) == ["subscription"]

    assert (await signup.read(row.id)).status == "active"
    assert [bill.state for bill in await signup.bills()] == ["paid"]
    await _is_clean_again(signup)


@pytest.mark.slow
async def test_cycles_that_nobody_told_of(signup: Signup) -> None:
    row = await signup.subscribed()
    await signup.advance(days=50)

    assert _kinds(await reconcile_razorpay(signup.context)) == ["subscription"]

    row = await signup.read(row.id)
    assert (row.status, row.paid_count) == ("active", 2)
    assert row.paid_through_ms
    assert row.paid_through_ms > now_ms()
    assert [bill.state for bill in await signup.bills()] == ["paid"] * 2
    await _is_clean_again(signup)


@pytest.mark.slow
async def test_a_paid_link_that_nobody_told_of(signup: Signup) -> None:
    charge = await _link(signup)
    assert charge.razorpay_id
    signup.razorpay.pay_link(charge.razorpay_id)

    assert _kinds(await reconcile_razorpay(signup.context)) == ["charge"]

    (bill,) = [bill for bill in await signup.bills() if bill.kind == "overage"]
    assert (bill.state, bill.paid_paise) == ("paid", OVERAGE_PAISE)
    await _is_clean_again(signup)


@pytest.mark.slow
async def test_a_link_paid_after_it_was_thought_gone(signup: Signup) -> None:
    """The charge is void and another is live: the bill takes the money, and nothing is collected twice."""
    charge = await _link(signup)
    assert charge.razorpay_id
    await signup.advance(days=40)
    await collect(signup.context)
    await collect(signup.context)
    bill_id = charge.bill_id
    attempts = [one.state for one in await signup.all(Charge, Charge.attempt) if one.bill_id == bill_id]
    assert attempts == ["void", "submitted"], "the link has expired, and there is another"
    signup.razorpay.pay_link(charge.razorpay_id, late=True)

    found = await reconcile_razorpay(signup.context)
    await collect(signup.context)

    assert found.is_clean
    (bill,) = [bill for bill in await signup.bills() if bill.id == bill_id]
    assert (bill.state, bill.paid_paise) == ("paid", OVERAGE_PAISE)
    attempts = [one.state for one in await signup.all(Charge, Charge.attempt) if one.bill_id == bill_id]
    assert attempts == ["paid", "void"]
    await reconcile_razorpay(signup.context)
    await _is_clean_again(signup)


@pytest.mark.slow
async def test_a_refund_from_the_dashboard(signup: Signup) -> None:
    await signup.subscribed()
    (payment,) = await signup.payments()
    signup.razorpay.refund_payment(payment.razorpay_id, 1_000)

    assert _kinds(await reconcile_razorpay(signup.context)) == ["payment"]

    (payment,) = await signup.payments()
    assert payment.refunded_paise == 1_000
    assert [refund.amount_paise for refund in await signup.refunds()] == [1_000]
    await _is_clean_again(signup, "refund_by_hand")


async def test_a_cancel_in_the_customers_app(signup: Signup) -> None:
    row = await signup.subscribed()
    assert row.razorpay_id
    signup.razorpay.customer(row.razorpay_id, "revoke")

    assert _kinds(await reconcile_razorpay(signup.context)) == ["subscription"]

    row = await signup.read(row.id)
    assert row.status == "cancelled"
    assert await signup.served_until() == row.paid_through_ms
    await _is_clean_again(signup)


async def test_an_answer_that_was_lost(signup: Signup) -> None:
    signup.razorpay.fault(route="POST /v1/subscriptions", kind="cut", when="after")
    row = await signup.request()
    assert row.state == "submitting"

    found = await reconcile_razorpay(signup.context)

    assert _kinds(found) == ["subscription"]
    (theirs,) = signup.at_razorpay()
    assert (await signup.read(row.id)).razorpay_id == theirs["id"]
    await _is_clean_again(signup)


@pytest.mark.slow
async def test_money_of_ours_that_nobody_can_explain_is_listed(signup: Signup) -> None:
    """A copy of our link, made in the dashboard, was paid."""
    charge = await _link(signup)
    copy = await signup.context.razorpay.create_payment_link(
        amount_paise=4_200,
        reference_id="a-copy-of-ours",
        description="Usage",
        customer={"name": "Nimbus", "email": "billing@nimbus.example"},
        expire_by=now_ms() // 1000 + 86_400,
        notes={"tenant_id": str(signup.tenant_id), "charge": str(charge.id)},
    )
    paid = signup.razorpay.pay_link(copy.id)

    found = await reconcile_razorpay(signup.context)

    assert [(one["kind"], one["id"]) for one in found.unexplained] == [("payment", paid["payment"]["id"])]
    assert not found.is_clean
    assert await signup.findings() == ["payment_unplaced"]
    assert (await signup.all(Charge))[0].state == "submitted"
    async with signup.context.database.session() as session:
        (stored,) = list(await session.scalars(select(RazorpayReconciliation)))
    assert (stored.unexplained, stored.report["unexplained"]) == (1, found.unexplained)


async def test_what_is_another_products_is_only_counted(signup: Signup) -> None:
    gateway = signup.context.razorpay
    plan = await gateway.create_plan(name="Other", amount_paise=10_000, notes={})
    other = await gateway.create_subscription(plan_id=plan.id, total_count=12, notes={"tenant_id": "not ours"})
    signup.razorpay.authorise(other.id)
    link = await gateway.create_payment_link(
        amount_paise=4_200,
        reference_id="order-1",
        description="A mug",
        customer={"name": "Somebody", "email": "some@body.example"},
        expire_by=now_ms() // 1000 + 86_400,
        notes={},
    )
    signup.razorpay.pay_link(link.id)

    for _ in range(2):
        found = await reconcile_razorpay(signup.context)
        assert (found.healed, found.unexplained, found.foreign) == ([], [], 4)
        assert (found.collected_paise, found.refunded_paise) == (0, 0)
    assert [one["status"] for one in signup.at_razorpay()] == ["active"]
    assert await signup.findings() == []


async def test_an_invoice_without_a_subscription_is_another_products(signup: Signup) -> None:
    """It belongs to no subscription of ours, not even to one that Razorpay refused, which has no id there."""
    signup.razorpay.fault(route="POST /v1/subscriptions", kind="error", status=400, code="BAD_REQUEST_ERROR")
    row = await signup.request()
    assert (row.state, row.razorpay_id) == ("void", None)
    async with httpx2.AsyncClient(base_url=signup.razorpay.url, auth=(KEY_ID, KEY_SECRET)) as dashboard:
        mug = {"customer": {"name": "Somebody"}, "line_items": [{"name": "A mug", "amount": 4_200}]}
        invoice = (await dashboard.post("/v1/invoices", json=mug)).raise_for_status().json()
    signup.razorpay.pay_invoice(invoice["id"])

    found = await reconcile_razorpay(signup.context)

    assert (found.healed, found.unexplained, found.foreign) == ([], [], 1)
    assert await signup.findings() == []


async def test_money_that_names_a_tenant_and_pays_nothing_we_know_is_a_finding_until_it_is_placed(
    signup: Signup,
) -> None:
    """Its notes are ours, so it is not silently another product's; once it is recorded the finding closes."""
    now_s = now_ms() // 1000
    notes = {"tenant_id": str(signup.tenant_id)}
    signup.razorpay.sim("POST", "/strangers", count=1, since=now_s - 86_400, notes=notes)
    signup.razorpay.sim("POST", "/strangers", count=1, since=now_s - 86_400, notes={"tenant_id": str(uuid7())})

    for _ in range(2):
        found = await reconcile_razorpay(signup.context)
        assert [one["kind"] for one in found.unexplained] == ["payment"]
        assert found.foreign == 1
    assert await signup.findings() == ["unexplained"]

    async with signup.context.database.session() as session:
        session.add(
            Payment(
                tenant_id=signup.tenant_id,
                razorpay_id=found.unexplained[0]["id"],
                status="captured",
                amount_paise=10_000,
            )
        )
    assert (await reconcile_razorpay(signup.context)).is_clean
    async with signup.context.database.session() as session:
        assert list(await session.scalars(select(BillingFinding.key).where(BillingFinding.closed_ms.is_(None)))) == []


@pytest.mark.slow
async def test_a_run_that_stops_says_how_far_it_came_and_the_next_continues_there(signup: Signup) -> None:
    begin = now_ms() // 1000 - 59 * 86_400
    signup.razorpay.sim("POST", "/strangers", count=200, since=begin)
    signup.razorpay.fault(route="GET /v1/payments", kind="error", status=503, times=None, skip=20)
    stopped = RazorpayReport()

    with pytest.raises(RazorpayError):
        await reconcile_razorpay(signup.context, found=stopped)

    assert 15 <= stopped.days_compared < stopped.days
    assert (stopped.is_clean, stopped.progress) == (False, f"{stopped.days_compared} of {stopped.days} days compared")
    async with signup.context.database.session() as session:
        (stored,) = list(await session.scalars(select(RazorpayReconciliation)))
        done = set(await session.scalars(select(ComparedDay.starts_ms)))
    assert (stored.report["days_compared"], stored.report["stopped"]) == (stopped.days_compared, stopped.stopped)
    # A day whose commit the stop interrupted may be stored and not counted: of each of the calls at once, one.
    assert stopped.days_compared <= len(done) <= stopped.days_compared + PARALLEL

    signup.razorpay.clear_faults()
    span = windows(now_ms() - WINDOW_DAYS * DAY_MS, now_ms())
    async with signup.context.database.session() as session:
        following = in_order(span, await compared_since(session, span))
    assert following[0] == span[0], "today comes first"
    left = stopped.days - len(done)
    assert {day.since * 1000 for day in following[1 : left + 1]} == {day.since * 1000 for day in span} - done
    assert (await reconcile_razorpay(signup.context)).is_clean
    async with signup.context.database.session() as session:
        assert len(set(await session.scalars(select(ComparedDay.starts_ms)))) == stopped.days


@pytest.mark.slow
async def test_a_mandate_its_debit_and_its_end_that_nobody_told_of(signup: Signup) -> None:
    tenant = await MandatedTenant.start(signup)
    row = await tenant.wish()
    assert row.razorpay_id
    signup.razorpay.register(row.razorpay_id)
    assert "mandate" in _kinds(await reconcile_razorpay(signup.context))
    assert (await tenant.mandate(row.id)).state == "active"

    bill_id = await tenant.bill()
    await tenant.work()
    await signup.advance(seconds=40 * 3600)
    assert "charge" in _kinds(await reconcile_razorpay(signup.context))
    assert (await tenant.read(bill_id)).state == "paid"

    signup.razorpay.mandate(str((await tenant.mandate(row.id)).token_id), "cancel")
    assert "mandate" in _kinds(await reconcile_razorpay(signup.context))
    assert (await tenant.mandate(row.id)).state == "ended"
    await tenant.work()
    again = await reconcile_razorpay(signup.context)
    assert (again.healed, again.unexplained, again.foreign) == ([], [], 0)


async def test_razorpay_away_changes_nothing(signup: Signup) -> None:
    row = await signup.request()
    assert row.razorpay_id
    signup.razorpay.authorise(row.razorpay_id)
    signup.razorpay.fault(route="GET *", kind="error", status=503, times=None)

    with pytest.raises(RazorpayError):
        await reconcile_razorpay(signup.context)

    assert (await signup.read(row.id)).status == "created"
    async with signup.context.database.session() as session:
        (stored,) = list(await session.scalars(select(RazorpayReconciliation)))
    assert (stored.report["compared"], stored.report["days_compared"]) == ({}, 0)
