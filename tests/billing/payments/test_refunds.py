"""Refunds: once per cause, approved above the cap, or made in the dashboard; and disputes."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from billing.collection.write_off import write_off_bill
from billing.context import BillingContext
from billing.models import Dispute, Payment, Refund
from billing.models.bills import due_of
from billing.payments.disputes import record_dispute
from billing.payments.refunds import decide_refund, refresh_refunds, request_refund, send_again
from billing.webhooks.envelope import Target
from billing.webhooks.handlers import refresh_target
from core.errors import Conflict, NotFound
from core.ids import uuid7
from core.tenancy.audit import Actor
from core.tenancy.models import AuditEntry
from tests.billing.billed_tenant import PAISE, BilledTenant, with_rules
from tests.billing.ledger_proof import proved
from tests.billing.operator import OperatorSetup
from tests.simulated_razorpay import Razorpay

OPERATOR = Actor("cli:test")


@pytest.fixture
async def tenant(context: BillingContext, razorpay: Razorpay) -> AsyncIterator[BilledTenant]:
    """A tenant, whose ledger is proved in the end."""
    yield await BilledTenant.open(context, razorpay)
    await proved(context)


async def paid(tenant: BilledTenant) -> Payment:
    """Pays a bill."""
    await tenant.bill()
    await tenant.collect()
    tenant.razorpay.pay_link(tenant.links()[-1]["id"])
    await tenant.age()
    await tenant.collect()
    return (await tenant.payments())[-1]


async def wanted(tenant: BilledTenant, payment: Payment, paise: int, cause: str) -> Refund:
    """Requests a refund."""
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        return await request_refund(session, tenant.context, tenant.tenant_id, payment.razorpay_id, paise, cause)


async def test_a_refund_is_sent_once_per_cause(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    first = await wanted(tenant, payment, 5_000, "credit:1")
    assert (await wanted(tenant, payment, 7_000, "credit:1")).id == first.id
    await tenant.collect(3)
    [row] = await tenant.refunds()
    [told] = await tenant.context.razorpay.refunds_of(payment.razorpay_id)
    assert (row.state, row.razorpay_id, row.amount_paise) == ("processed", told.id, 5_000)
    assert told.notes == {"naka_refund": str(row.id)}
    assert (await tenant.payments())[0].refunded_paise == 5_000
    assert tenant.net_collected() == PAISE - 5_000


async def test_two_causes_are_two_refunds(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    await wanted(tenant, payment, 5_000, "credit:1")
    await wanted(tenant, payment, 5_000, "credit:2")
    await tenant.collect()
    assert [one.state for one in await tenant.refunds()] == ["processed", "processed"]
    assert tenant.net_collected() == PAISE - 10_000


async def test_above_the_cap_an_operator_decides(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    tenant.context = with_rules(tenant.context, refund_cap_paise=5_000)
    at_cap, above, denied = [await wanted(tenant, payment, paise, str(paise)) for paise in (5_000, 5_001, 6_000)]
    await tenant.collect(2)
    assert [one.state for one in await tenant.refunds()] == ["processed", "awaiting_operator", "awaiting_operator"]
    assert await tenant.findings() == ["refund_awaits_operator"] * 2
    await decide_refund(tenant.context, OPERATOR, above.id, approve=True, reason="right")
    await decide_refund(tenant.context, OPERATOR, denied.id, approve=False, reason="wrong")
    await tenant.collect(2)
    assert [one.state for one in await tenant.refunds()] == ["processed", "processed", "void"]
    assert tenant.net_collected() == PAISE - 10_001
    for key, error in ((at_cap.id, Conflict), (denied.id, Conflict), (uuid7(), NotFound)):
        with pytest.raises(error):
            await decide_refund(tenant.context, OPERATOR, key, approve=True, reason="again")
    async with tenant.context.database.session() as session:
        actions = (await session.scalars(select(AuditEntry.action).order_by(AuditEntry.id))).all()
    assert actions == ["refund.approve", "refund.deny"]


async def test_a_refund_that_fails_later_is_told(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    tenant.razorpay.settings(refund_fails=1)
    await wanted(tenant, payment, 5_000, "credit:1")
    await tenant.collect(2)
    [row] = await tenant.refunds()
    assert (row.state, await tenant.findings()) == ("failed", ["refund_failed"])
    assert (await tenant.payments())[0].refunded_paise == 0
    assert tenant.net_collected() == PAISE


async def test_a_refused_refund_is_told(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    await wanted(tenant, payment, PAISE + 1, "credit:1")
    await tenant.collect(2)
    [row] = await tenant.refunds()
    assert (row.state, await tenant.findings()) == ("failed", ["refund_failed"])
    assert "greater than" in str(row.error)


async def test_a_wrong_key_fails_no_refund(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    await wanted(tenant, payment, 5_000, "credit:1")
    route = "POST /v1/payments/*/refund"
    tenant.razorpay.fault(route=route, kind="error", status=401, code="BAD_REQUEST_ERROR", description="no")
    await tenant.collect()
    assert [one.state for one in await tenant.refunds()] == ["submitting"]
    await tenant.collect()
    assert [one.state for one in await tenant.refunds()] == ["processed"]


async def test_a_refund_in_the_dashboard_is_recorded_and_opens_no_bill(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    made = tenant.razorpay.refund_payment(payment.razorpay_id, 40_000)
    assert await refresh_refunds(tenant.context, payment.razorpay_id)
    assert await refresh_refunds(tenant.context, payment.razorpay_id)
    [row], [seen] = await tenant.refunds(), await tenant.payments()
    assert (row.cause, row.state, row.amount_paise) == (f"razorpay:{made['id']}", "processed", 40_000)
    assert (seen.refunded_paise, seen.status) == (40_000, "captured")
    assert await tenant.findings() == ["refund_by_hand"]
    tenant.razorpay.refund_payment(payment.razorpay_id)
    assert await refresh_refunds(tenant.context, payment.razorpay_id)
    await tenant.collect(2)
    [seen] = await tenant.payments()
    assert (seen.refunded_paise, seen.status) == (PAISE, "refunded")
    assert (await tenant.read(seen.bill_id or uuid7())).state == "paid"
    assert len(tenant.links()) == 1


async def test_a_payment_that_is_not_ours_is_left_alone(tenant: BilledTenant) -> None:
    assert not await refresh_refunds(tenant.context, "pay_ABCDEFGHIJKLMN")


@pytest.mark.slow
async def test_a_dispute_is_kept_and_told_in_any_order(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    opened = tenant.razorpay.dispute(payment.razorpay_id)
    assert not await record_dispute(tenant.context, {**opened, "payment_id": "pay_ABCDEFGHIJKLMN"})
    assert await record_dispute(tenant.context, opened)
    lost = tenant.razorpay.close_dispute(opened["id"], "lost")
    assert await record_dispute(tenant.context, lost)
    assert await record_dispute(tenant.context, opened)  # a late repetition
    async with tenant.context.database.session() as session:
        [row] = (await session.scalars(select(Dispute))).all()
    assert (row.status, row.amount_paise, row.payment_id) == ("lost", PAISE, payment.razorpay_id)
    assert await tenant.findings() == ["dispute", "dispute"]
    bill = await tenant.read(payment.bill_id or uuid7())
    assert (bill.state, bill.paid_paise, due_of(bill)) == ("open", 0, PAISE)
    await tenant.collect()
    tenant.razorpay.pay_link(tenant.links()[-1]["id"])
    await tenant.age()
    await tenant.collect()
    assert (await tenant.read(bill.id)).state == "paid"
    assert (await proved(tenant.context))["cash"] == PAISE  # two payments, and one taken back


async def test_a_dispute_that_was_won_changes_nothing(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    opened = tenant.razorpay.dispute(payment.razorpay_id)
    for dispute in (opened, tenant.razorpay.close_dispute(opened["id"], "won")):
        assert await record_dispute(tenant.context, dispute)
    assert (await tenant.read(payment.bill_id or uuid7())).state == "paid"
    assert (await proved(tenant.context))["cash"] == PAISE


async def lose(tenant: BilledTenant, payment: Payment) -> str:
    """Loses a dispute of the payment, as its event tells; returns the dispute's id."""
    opened = tenant.razorpay.dispute(payment.razorpay_id)
    await settle_dispute(tenant, opened["id"], "lost")
    return str(opened["id"])


async def settle_dispute(tenant: BilledTenant, dispute_id: str, status: str) -> None:
    """Ends a dispute so, and processes its event twice, whose copy is outdated."""
    tenant.razorpay.close_dispute(dispute_id, status)
    for _ in range(2):
        found = await refresh_target(tenant.context, Target("dispute", dispute_id), {"status": "open"}, set())
        assert found.ours


@pytest.mark.slow
async def test_a_dispute_lost_and_later_won_pays_its_bill_again(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    dispute_id = await lose(tenant, payment)
    await tenant.collect()
    bill_id = payment.bill_id or uuid7()
    assert ((await tenant.read(bill_id)).state, [link["status"] for link in tenant.links()]) == (
        "open",
        ["paid", "created"],
    )
    for status in ("won", "lost", "won"):
        await settle_dispute(tenant, dispute_id, status)
        await proved(tenant.context)
        assert (await tenant.read(bill_id)).state == ("open" if status == "lost" else "paid")
        await tenant.collect(2)
    bill = await tenant.read(bill_id)
    assert (bill.paid_paise, due_of(bill)) == (PAISE, 0)
    assert "created" not in [link["status"] for link in tenant.links()], "nobody can pay it again"
    assert (await proved(tenant.context))["cash"] == PAISE
    assert await tenant.refunds() == []
    assert await OperatorSetup(tenant.context).findings() == []


async def test_a_bill_paid_again_before_its_dispute_was_won_is_paid_back_once(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    dispute_id = await lose(tenant, payment)
    await tenant.collect()
    tenant.razorpay.pay_link(tenant.links()[-1]["id"])
    await tenant.age()
    await tenant.collect()
    await settle_dispute(tenant, dispute_id, "won")
    await tenant.collect(2)
    [refund] = await tenant.refunds()
    assert (refund.payment_id, refund.amount_paise, refund.state) == (payment.razorpay_id, PAISE, "processed")
    assert refund.cause == f"excess:{payment.razorpay_id}:{dispute_id}:1"
    assert tenant.net_collected() == PAISE
    balances = await proved(tenant.context)
    assert (balances["cash"], balances["receivable"], balances["customer_credit"]) == (PAISE, 0, 0)
    assert await OperatorSetup(tenant.context).findings() == []


async def test_a_debt_written_off_after_a_lost_dispute_is_paid_when_it_is_won(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    dispute_id = await lose(tenant, payment)
    await write_off_bill(tenant.context, OPERATOR, payment.bill_id or uuid7(), "gone")
    await settle_dispute(tenant, dispute_id, "won")
    bill = await tenant.read(payment.bill_id or uuid7())
    assert (bill.state, bill.paid_paise, bill.written_off_paise) == ("paid", PAISE, 0)
    balances = await proved(tenant.context)
    assert (balances["cash"], balances["write_off"]) == (PAISE, 0)
    assert await tenant.refunds() == []


async def test_a_dispute_that_is_won_gives_nothing_back_that_an_awaited_refund_gives(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    tenant.context = with_rules(tenant.context, refund_cap_paise=5_000)
    await tenant.credit(payment.bill_id or uuid7(), 30_000)
    awaiting = await wanted(tenant, payment, 30_000, "credit:1")
    dispute_id = await lose(tenant, payment)
    await settle_dispute(tenant, dispute_id, "won")
    await decide_refund(tenant.context, OPERATOR, awaiting.id, approve=True, reason="right")
    await tenant.collect(2)
    assert [(one.cause, one.state) for one in await tenant.refunds()] == [("credit:1", "processed")]
    assert tenant.net_collected() == PAISE - 30_000


@pytest.mark.slow
async def test_a_dispute_that_is_won_gives_nothing_back_that_a_failed_refund_gives_when_sent_again(
    tenant: BilledTenant,
) -> None:
    payment = await paid(tenant)
    await tenant.credit(payment.bill_id or uuid7(), 30_000)
    failed = await wanted(tenant, payment, 30_000, "credit:1")
    for _ in range(2):
        tenant.razorpay.settings(refund_fails=1)
        await tenant.collect(2)
        dispute_id = await lose(tenant, payment)
        await settle_dispute(tenant, dispute_id, "won")
        failed = await send_again(tenant.context, OPERATOR, failed.id, reason="again")
    tenant.razorpay.settings(refund_fails=0)
    await tenant.collect(2)
    assert [one.state for one in await tenant.refunds()] == ["failed", "failed", "processed"]
    assert tenant.net_collected() == PAISE - 30_000
