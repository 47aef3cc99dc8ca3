"""Bills that the wallet pays: drawn once, exactly, and given back by credit notes."""

import pytest

from billing.documents.html import render_html
from billing.invoicing.issuing import document_of
from billing.prepaid.credit import give_credit
from core.clock import now_ms
from tests.billing.ledger_proof import proved
from tests.billing.prepaid.prepaid_tenant import ACTOR, PrepaidTenant


@pytest.mark.slow
async def test_a_month_is_paid_from_the_wallet_when_it_is_closed(prepaid: PrepaidTenant) -> None:
    voucher = await prepaid.funded(100_000)
    await prepaid.use(1_300)
    assert await prepaid.balance() == (100_000, 70_000)
    assert await prepaid.end_month() == 1
    (bill,) = await prepaid.bills("overage")
    assert (bill.state, bill.taxable_paise, bill.total_paise, bill.paid_paise) == ("paid", 30_000, 35_400, 35_400)
    assert bill.number is not None
    assert await prepaid.entries() == [("top_up", 100_000), ("usage", -30_000)]
    assert await prepaid.balance() == (70_000, 70_000)
    booked = await prepaid.booked()
    assert booked == {"cash": 118_000, "customer_credit": -70_000, "revenue": -30_000, "gst_payable": -18_000}
    async with prepaid.context.database.session() as session:
        page = render_html(await document_of(session, prepaid.context, bill))
    await proved(prepaid.context)
    assert f"Adjusted against advance: {voucher.number} of" in page
    assert await prepaid.setup.close() == 0, "nothing is drawn twice"


async def test_usage_past_the_balance_is_cut(prepaid: PrepaidTenant) -> None:
    await prepaid.funded(20_000)
    await prepaid.use(1_250)
    assert await prepaid.ceiling() == 20_000
    assert await prepaid.balance() == (20_000, 0)
    await prepaid.end_month()
    (bill,) = await prepaid.bills("overage")
    assert (bill.taxable_paise, bill.lines[-1]["kind"], bill.lines[-1]["amount_paise"]) == (20_000, "ceiling", -5_000)
    assert await prepaid.balance() == (0, 0)


@pytest.mark.slow
async def test_promotional_credit_reduces_the_taxable_value(prepaid: PrepaidTenant) -> None:
    await prepaid.funded(100_000)
    await give_credit(prepaid.context, ACTOR, prepaid.tenant_id, 10_000, reason="welcome", reference="w")
    await give_credit(prepaid.context, ACTOR, prepaid.tenant_id, 10_000, reason="welcome", reference="w")
    assert await prepaid.ceiling() == 110_000
    await prepaid.use(1_300)
    await prepaid.end_month()
    (bill,) = await prepaid.bills("overage")
    assert (bill.taxable_paise, bill.total_paise) == (20_000, 23_600)
    assert [line["amount_paise"] for line in bill.lines] == [30_000, -10_000]
    assert await prepaid.entries() == [
        ("top_up", 100_000),
        ("promotion", 10_000),
        ("usage", -20_000),
        ("usage", -10_000),
    ]


async def test_a_bill_of_credit_alone_is_paid_too(prepaid: PrepaidTenant) -> None:
    await give_credit(prepaid.context, ACTOR, prepaid.tenant_id, 500, reason="welcome")
    await prepaid.use(1_003)
    await prepaid.end_month()
    (bill,) = await prepaid.bills("overage")
    assert (bill.state, bill.taxable_paise, bill.total_paise) == ("paid", 0, 0)
    assert await prepaid.balance() == (200, 200)


async def test_a_correction_gives_back_to_the_wallet_money_first(prepaid: PrepaidTenant) -> None:
    await prepaid.funded(100_000)
    await give_credit(prepaid.context, ACTOR, prepaid.tenant_id, 10_000, reason="welcome")
    await prepaid.use(1_300)
    name = await prepaid.month()
    await prepaid.end_month()
    await prepaid.setup.add_usage(prepaid.tenant_id, name, output_tokens=-250)
    await prepaid.setup.close()
    (note,) = await prepaid.bills("credit_note")
    assert (note.taxable_paise, note.total_paise) == (-20_000, -23_600)
    assert [line["amount_paise"] for line in note.lines] == [-25_000, 5_000]
    assert await prepaid.balance() == (105_000, 105_000)
    assert await prepaid.setup.refunds(prepaid.tenant_id) == []
    assert (await prepaid.booked())["customer_credit"] == -100_000
    await proved(prepaid.context)


@pytest.mark.slow
async def test_without_a_profile_the_bill_waits_and_the_credit_with_it(prepaid: PrepaidTenant) -> None:
    other = PrepaidTenant(prepaid.setup, prepaid.razorpay, await prepaid.setup.tenant(plan="pre", is_known=False))
    await other.project()
    await give_credit(other.context, ACTOR, other.tenant_id, 30_000, reason="welcome")
    await other.use(1_100)
    await other.end_month()
    assert [bill.state for bill in await other.bills("overage")] == ["held"]
    assert await other.balance() == (30_000, 20_000)
    await other.setup.set_profile(other.tenant_id)
    await other.setup.close()
    assert [bill.state for bill in await other.bills("overage")] == ["void", "paid"]
    assert await other.balance() == (20_000, 20_000)


async def test_the_next_month_has_nothing_until_shortly_before_it(prepaid: PrepaidTenant) -> None:
    await prepaid.funded(100_000)
    await prepaid.use(1_200)
    months = await prepaid.funds()
    assert list(months.values()) == [100_000, 0]
    end = (await prepaid.periods())[0].ends_ms
    assert list((await prepaid.funds(end - 60_000)).values()) == [60_000, 40_000]
    assert list((await prepaid.funds(end + 60_000)).values())[:2] == [20_000, 80_000]
    assert now_ms() < end
