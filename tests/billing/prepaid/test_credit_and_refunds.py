"""Coupons, expiry, refunds of unused money, low balances."""

from asyncio import gather

import pytest
from sqlalchemy import select

from billing.alerts.alerts import store_alerts
from billing.collection.collection import collect
from billing.models import Alert, Bill, Coupon, Payment, WalletEntry
from billing.payments.disputes import record_dispute
from billing.payments.refunds import refresh_refunds
from billing.prepaid.credit import end_coupon, give_credit, new_coupon, redeem_coupon
from billing.prepaid.refunds import refund_unused
from billing.prepaid.settings import set_settings
from billing.standing.reader import money_status
from core.clock import now_ms
from core.errors import Conflict, Invalid
from tests.billing.ledger_proof import proved
from tests.billing.prepaid.prepaid_tenant import ACTOR, PrepaidTenant


async def coupon(prepaid: PrepaidTenant, **changed: int | None) -> None:
    given = {"paise": 5_000, "credit_days": 30, "expires_ms": None, "max_uses": 1} | changed
    async with prepaid.context.database.session() as session:
        await new_coupon(session, ACTOR, code="hello", **given)  # type: ignore[arg-type]


async def test_a_coupon_is_used_once_per_tenant_and_as_often_as_it_says(prepaid: PrepaidTenant) -> None:
    await coupon(prepaid)
    entry = await redeem_coupon(prepaid.context, ACTOR, prepaid.tenant_id, "Hello")
    assert (entry.kind, entry.paise, entry.reason) == ("promotion", 5_000, "coupon HELLO")
    assert await prepaid.ceiling() == 5_000
    with pytest.raises(Conflict):
        await redeem_coupon(prepaid.context, ACTOR, prepaid.tenant_id, "HELLO")
    other = await prepaid.setup.tenant(plan="pre")
    with pytest.raises(Invalid):
        await redeem_coupon(prepaid.context, ACTOR, other, "HELLO")
    async with prepaid.context.database.session() as session:
        assert (await session.get_one(Coupon, "HELLO")).uses == 1


async def test_a_code_that_two_operators_create_at_once_exists_once(prepaid: PrepaidTenant) -> None:
    made = await gather(coupon(prepaid), coupon(prepaid), return_exceptions=True)
    assert [type(one) for one in made if one is not None] == [Conflict]


async def test_credit_is_given_once_per_reference(prepaid: PrepaidTenant) -> None:
    given = prepaid.context, ACTOR, prepaid.tenant_id
    first = await give_credit(*given, 5_000, reason="an outage", reference="ticket-1")
    assert (await give_credit(*given, 5_000, reason="an outage", reference="ticket-1")).id == first.id
    with pytest.raises(Conflict, match="another credit"):
        await give_credit(*given, 6_000, reason="an outage", reference="ticket-1")
    assert await prepaid.ceiling() == 5_000


async def test_an_ended_coupon_gives_nothing(prepaid: PrepaidTenant) -> None:
    await coupon(prepaid)
    async with prepaid.context.database.session() as session:
        await end_coupon(session, ACTOR, "hello")
    with pytest.raises(Invalid):
        await redeem_coupon(prepaid.context, ACTOR, prepaid.tenant_id, "HELLO")


@pytest.mark.slow
async def test_credit_expires_after_the_usage_that_it_covers_was_billed(prepaid: PrepaidTenant) -> None:
    await prepaid.funded(50_000)
    await give_credit(prepaid.context, ACTOR, prepaid.tenant_id, 10_000, reason="welcome", days=1)
    await prepaid.use(1_030)
    await prepaid.run()
    assert [row.kind for row in await prepaid.rows(WalletEntry)] == ["top_up", "promotion"]
    await prepaid.advance(days=1)
    await prepaid.run()
    assert await prepaid.entries() == [("top_up", 50_000), ("promotion", 10_000), ("expiry", -7_000), ("usage", -3_000)]
    assert await prepaid.balance() == (50_000, 50_000)
    assert await prepaid.ceiling() == 53_000, "of the month, of which 3,000 are paid"
    await prepaid.use(20)
    await prepaid.end_month()
    assert [bill.taxable_paise for bill in await prepaid.bills("overage")] == [0, 2_000]
    await prepaid.run()
    assert await prepaid.balance() == (48_000, 48_000)


@pytest.mark.slow
async def test_unused_money_is_refunded_with_its_tax(prepaid: PrepaidTenant) -> None:
    voucher = await prepaid.funded(100_000)
    await give_credit(prepaid.context, ACTOR, prepaid.tenant_id, 5_000, reason="welcome")
    await prepaid.use(1_200)
    with pytest.raises(Conflict):
        await refund_unused(prepaid.context, ACTOR, prepaid.tenant_id, 90_000, reason="leaves")
    (made,) = await refund_unused(prepaid.context, ACTOR, prepaid.tenant_id, None, reason="leaves")
    assert (made.kind, made.state, made.taxable_paise, made.total_paise) == (
        "refund_voucher",
        "issued",
        -85_000,
        -100_300,
    )
    assert made.refers_to == voucher.id
    assert made.number is not None
    assert made.number.startswith("TRF/")
    ((_, paise, cause),) = await prepaid.setup.refunds(prepaid.tenant_id)
    assert (paise, cause) == (100_300, f"wallet:{made.id}")
    assert await prepaid.balance() == (20_000, 0)
    for _ in range(3):
        await collect(prepaid.context)
    assert prepaid.razorpay.money()["totals"]["kept"] == 118_000 - 100_300
    await proved(prepaid.context)


@pytest.mark.slow
async def test_a_low_balance_alerts_once_until_something_is_added(prepaid: PrepaidTenant) -> None:
    await prepaid.funded(100_000)
    async with prepaid.context.database.session() as session:
        rules = {"low_paise": 50_000, "top_up_below_paise": None, "top_up_paise": None}
        await set_settings(session, ACTOR, prepaid.tenant_id, **rules)
    await store_alerts(prepaid.context)
    await prepaid.use(1_600)
    for _ in range(2):
        await store_alerts(prepaid.context)
    await prepaid.funded(20_000)
    await prepaid.use(300)
    await store_alerts(prepaid.context)
    alerts = [row for row in await prepaid.rows(Alert) if row.kind == "wallet.balance_low"]
    assert [row.data["balance_paise"] for row in alerts] == [40_000, 30_000]


async def test_the_status_of_a_prepaid_account_is_that_of_its_wallet(prepaid: PrepaidTenant) -> None:
    async def state() -> tuple[str, int | None]:
        async with prepaid.context.database.session() as session:
            status = await money_status(session, prepaid.tenant_id, now_ms())
        return status.state.value, status.balance_paise

    assert await state() == ("empty", 0)
    await prepaid.funded(50_000)
    assert await state() == ("active", 50_000)
    async with prepaid.context.database.session() as session:
        rules = {"low_paise": 30_000, "top_up_below_paise": None, "top_up_paise": None}
        await set_settings(session, ACTOR, prepaid.tenant_id, **rules)
    await prepaid.use(1_250)
    assert await state() == ("low", 25_000)


@pytest.mark.slow
async def test_a_lost_dispute_of_a_top_up_is_taken_out_of_the_wallet(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.funded(100_000)
    await prepaid.funded(50_000)
    async with prepaid.context.database.session() as session:
        payment = (await session.scalars(select(Payment).where(Payment.bill_id == bill.id))).one()
    told = {"id": "disp_1", "payment_id": payment.razorpay_id, "amount": 118_000}
    for status in ("open", "lost", "lost"):
        assert await record_dispute(prepaid.context, {**told, "status": status})
    assert await prepaid.balance() == (50_000, 50_000)
    assert await prepaid.ceiling() == 50_000
    bill = await prepaid.read(bill)
    assert (bill.state, bill.paid_paise) == ("paid", 118_000)
    assert (await prepaid.top_up(100_000)).id != bill.id
    await proved(prepaid.context)


async def refund_by_hand(prepaid: PrepaidTenant, bill: Bill, paise: int) -> None:
    """Refunds a top-up in Razorpay's dashboard; the duty runs twice."""
    payment = await payment_of(prepaid, bill)
    prepaid.razorpay.refund_payment(payment.razorpay_id, paise)
    await refresh_refunds(prepaid.context, payment.razorpay_id)
    for _ in range(2):
        await prepaid.collect()


async def payment_of(prepaid: PrepaidTenant, bill: Bill) -> Payment:
    """The payment of a top-up."""
    async with prepaid.context.database.session() as session:
        return (await session.scalars(select(Payment).where(Payment.bill_id == bill.id))).one()


@pytest.mark.slow
async def test_a_top_up_refunded_in_the_dashboard_gets_its_voucher(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.funded(100_000)
    await refund_by_hand(prepaid, bill, 59_000)
    (voucher,) = await prepaid.bills("refund_voucher")
    assert (voucher.refers_to, voucher.taxable_paise, voucher.total_paise) == (bill.id, -50_000, -59_000)
    assert (voucher.number or "").startswith("TRF/")
    assert await prepaid.entries() == [("top_up", 100_000), ("refund", -50_000)]
    assert await prepaid.ceiling() == 50_000
    await refund_by_hand(prepaid, bill, 33_333)
    await refund_by_hand(prepaid, bill, 118_000 - 59_000 - 33_333)
    vouchers = await prepaid.bills("refund_voucher")
    assert (sum(one.total_paise for one in vouchers), sum(one.taxable_paise for one in vouchers)) == (
        -118_000,
        -100_000,
    )
    assert await prepaid.balance() == (0, 0)
    assert set((await proved(prepaid.context)).values()) == {0}
    assert await prepaid.setup.findings() == []


@pytest.mark.slow
async def test_used_money_refunded_in_the_dashboard_is_owed_by_the_next_top_up(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.funded(100_000)
    await prepaid.use(1_400)
    await refund_by_hand(prepaid, bill, 118_000)
    assert await prepaid.balance() == (0, 0)
    assert await prepaid.ceiling() == 0
    await prepaid.funded(50_000)
    assert await prepaid.balance() == (50_000, 10_000)
    await prepaid.end_month()
    assert await prepaid.balance() == (10_000, 10_000)
    assert await prepaid.setup.findings() == []
    await proved(prepaid.context)


@pytest.mark.slow
async def test_our_own_refund_of_a_top_up_makes_one_voucher(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.funded(100_000)
    await refund_unused(prepaid.context, ACTOR, prepaid.tenant_id, 20_000, reason="asked for")
    await refund_by_hand(prepaid, bill, 11_800)
    assert [one.taxable_paise for one in await prepaid.bills("refund_voucher")] == [-20_000, -10_000]
    assert await prepaid.setup.findings() == []
    await proved(prepaid.context)


@pytest.mark.slow
async def test_a_top_up_s_dispute_that_is_won_after_all_is_added_again(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.funded(100_000)
    payment = await payment_of(prepaid, bill)
    told = {"id": "disp_1", "payment_id": payment.razorpay_id, "amount": 118_000}
    left = []
    for status in ("lost", "won", "won", "lost", "won"):
        assert await record_dispute(prepaid.context, {**told, "status": status})
        await proved(prepaid.context)
        left.append((await prepaid.balance())[0])
    assert left == [0, 100_000, 100_000, 0, 100_000]
    assert await prepaid.ceiling() == 100_000
    assert (await prepaid.booked())["cash"] == 118_000
    await prepaid.collect()
    assert await prepaid.setup.findings() == []
