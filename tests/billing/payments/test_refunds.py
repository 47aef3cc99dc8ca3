"""Money given back: once per cause, above the cap by an operator, in the dashboard by anybody; and disputes."""

import pytest
from sqlalchemy import select

from billing.context import BillingContext
from billing.models import Dispute, Payment, Refund
from billing.payments.disputes import record
from billing.payments.refunds import decide, refresh, want
from core.errors import Conflict, NotFound
from core.ids import uuid7
from core.tenancy.audit import Actor
from core.tenancy.models import AuditEntry
from tests.billing.till import PAISE, Till, at
from tests.simulated_razorpay import Razorpay

OPERATOR = Actor("cli:test")


@pytest.fixture
async def till(context: BillingContext, razorpay: Razorpay) -> Till:
    """A tenant's."""
    return await Till.open(context, razorpay)


async def paid(till: Till) -> Payment:
    """A payment that paid a bill."""
    await till.bill()
    await till.collect()
    till.razorpay.pay_link(till.links()[-1]["id"])
    await till.age()
    await till.collect()
    return (await till.payments())[-1]


async def wanted(till: Till, payment: Payment, paise: int, cause: str) -> Refund:
    """A refund that we want."""
    async with till.context.tenant_transaction(till.tenant_id) as session:
        return await want(session, till.context, till.tenant_id, payment.razorpay_id, paise, cause)


async def test_a_refund_is_sent_once_per_cause(till: Till) -> None:
    payment = await paid(till)
    first = await wanted(till, payment, 5_000, "credit:1")
    assert (await wanted(till, payment, 7_000, "credit:1")).id == first.id
    await till.collect(3)
    [row] = await till.refunds()
    [told] = await till.context.razorpay.refunds_of(payment.razorpay_id)
    assert (row.state, row.razorpay_id, row.amount_paise) == ("processed", told.id, 5_000)
    assert told.notes == {"naka_refund": str(row.id)}
    assert (await till.payments())[0].refunded_paise == 5_000
    assert till.kept() == PAISE - 5_000


async def test_two_causes_are_two_refunds(till: Till) -> None:
    payment = await paid(till)
    await wanted(till, payment, 5_000, "credit:1")
    await wanted(till, payment, 5_000, "credit:2")
    await till.collect()
    assert [one.state for one in await till.refunds()] == ["processed", "processed"]
    assert till.kept() == PAISE - 10_000


async def test_above_the_cap_an_operator_decides(till: Till) -> None:
    payment = await paid(till)
    till.context = at(till.context, refund_cap_paise=5_000)
    at_cap, above, denied = [await wanted(till, payment, paise, str(paise)) for paise in (5_000, 5_001, 6_000)]
    await till.collect(2)
    assert [one.state for one in await till.refunds()] == ["processed", "awaiting_operator", "awaiting_operator"]
    assert await till.findings() == ["refund_awaits_operator"] * 2
    await decide(till.context, OPERATOR, above.id, approve=True, reason="right")
    await decide(till.context, OPERATOR, denied.id, approve=False, reason="wrong")
    await till.collect(2)
    assert [one.state for one in await till.refunds()] == ["processed", "processed", "void"]
    assert till.kept() == PAISE - 10_001
    for key, error in ((at_cap.id, Conflict), (denied.id, Conflict), (uuid7(), NotFound)):
        with pytest.raises(error):
            await decide(till.context, OPERATOR, key, approve=True, reason="again")
    async with till.context.database.session() as session:
        actions = (await session.scalars(select(AuditEntry.action).order_by(AuditEntry.id))).all()
    assert actions == ["refund.approve", "refund.deny"]


async def test_a_refund_that_fails_later_is_told(till: Till) -> None:
    payment = await paid(till)
    till.razorpay.settings(refund_fails=1)
    await wanted(till, payment, 5_000, "credit:1")
    await till.collect(2)
    [row] = await till.refunds()
    assert (row.state, await till.findings()) == ("failed", ["refund_failed"])
    assert (await till.payments())[0].refunded_paise == 0
    assert till.kept() == PAISE


async def test_a_refused_refund_is_told(till: Till) -> None:
    payment = await paid(till)
    await wanted(till, payment, PAISE + 1, "credit:1")
    await till.collect(2)
    [row] = await till.refunds()
    assert (row.state, await till.findings()) == ("failed", ["refund_failed"])
    assert "greater than" in str(row.error)


async def test_a_wrong_key_fails_no_refund(till: Till) -> None:
    payment = await paid(till)
    await wanted(till, payment, 5_000, "credit:1")
    route = "POST /v1/payments/*/refund"
    till.razorpay.fault(route=route, kind="error", status=401, code="BAD_REQUEST_ERROR", description="no")
    await till.collect()
    assert [one.state for one in await till.refunds()] == ["submitting"]
    await till.collect()
    assert [one.state for one in await till.refunds()] == ["processed"]


async def test_a_refund_in_the_dashboard_is_recorded_and_opens_no_bill(till: Till) -> None:
    payment = await paid(till)
    made = till.razorpay.refund_payment(payment.razorpay_id, 40_000)
    assert await refresh(till.context, payment.razorpay_id)
    assert await refresh(till.context, payment.razorpay_id)
    [row], [seen] = await till.refunds(), await till.payments()
    assert (row.cause, row.state, row.amount_paise) == (f"razorpay:{made['id']}", "processed", 40_000)
    assert (seen.refunded_paise, seen.status) == (40_000, "captured")
    assert await till.findings() == ["refund_by_hand"]
    till.razorpay.refund_payment(payment.razorpay_id)
    assert await refresh(till.context, payment.razorpay_id)
    await till.collect(2)
    [seen] = await till.payments()
    assert (seen.refunded_paise, seen.status) == (PAISE, "refunded")
    assert (await till.read(seen.bill_id or uuid7())).state == "paid"
    assert len(till.links()) == 1


async def test_a_payment_that_is_not_ours_is_left_alone(till: Till) -> None:
    assert not await refresh(till.context, "pay_ABCDEFGHIJKLMN")


async def test_a_dispute_is_kept_and_told_in_any_order(till: Till) -> None:
    payment = await paid(till)
    opened = till.razorpay.dispute(payment.razorpay_id)
    assert not await record(till.context, {**opened, "payment_id": "pay_ABCDEFGHIJKLMN"})
    assert await record(till.context, opened)
    lost = till.razorpay.close_dispute(opened["id"], "lost")
    assert await record(till.context, lost)
    assert await record(till.context, opened)  # it comes again, late
    async with till.context.database.session() as session:
        [row] = (await session.scalars(select(Dispute))).all()
    assert (row.status, row.amount_paise, row.payment_id) == ("lost", PAISE, payment.razorpay_id)
    assert await till.findings() == ["dispute", "dispute"]
    assert (await till.read(payment.bill_id or uuid7())).state == "paid"
