"""Top-ups: paid once, numbered when paid, given up when their link is gone."""

import pytest

from billing.catalogue.profiles import set_profile
from billing.prepaid.refunds import refund_unused
from billing.prepaid.top_ups import top_up
from core.errors import Conflict, Invalid
from tests.billing.operator import profile
from tests.billing.prepaid.prepaid_tenant import ACTOR, PrepaidTenant


async def test_a_top_up_is_numbered_and_added_when_its_money_came(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.top_up(100_000)
    assert (bill.kind, bill.state, bill.number, bill.total_paise) == ("receipt_voucher", "open", None, 118_000)
    assert await prepaid.balance() == (0, 0)
    assert await prepaid.ceiling() == 0
    await prepaid.pay(bill)
    bill = await prepaid.read(bill)
    assert (bill.state, bill.paid_paise) == ("paid", 118_000)
    assert bill.number is not None
    assert bill.number.startswith("TRC/")
    assert await prepaid.entries() == [("top_up", 100_000)]
    assert await prepaid.ceiling() == 100_000


async def test_the_same_amount_is_one_top_up_and_another_replaces_it(prepaid: PrepaidTenant) -> None:
    first = await prepaid.top_up(100_000)
    assert (await prepaid.top_up(100_000)).id == first.id
    second = await prepaid.top_up(50_000)
    assert (await prepaid.read(first)).state == "void"
    await prepaid.pay(second)
    assert await prepaid.entries() == [("top_up", 50_000)]
    assert [one["status"] for one in prepaid.razorpay.ledger()["links"]] == ["cancelled", "paid"]


async def test_money_for_a_top_up_that_was_given_up_is_added(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.top_up(100_000)
    charge = await prepaid.charge(bill)
    prepaid.razorpay.pay_link(str(charge.razorpay_id))
    await prepaid.top_up(50_000)
    await prepaid.collect()
    assert (await prepaid.read(bill)).state == "paid"
    assert await prepaid.entries() == [("top_up", 100_000)]


async def test_a_top_up_whose_link_expired_is_given_up(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.top_up(100_000)
    await prepaid.expire_link(bill)
    await prepaid.run()
    bill = await prepaid.read(bill)
    assert (bill.state, bill.reason, bill.number) == ("void", "not paid", None)
    await prepaid.run()
    assert len(prepaid.razorpay.ledger()["links"]) == 1, "no other link was made"


async def test_only_a_prepaid_tenant_with_a_profile_has_a_wallet(prepaid: PrepaidTenant) -> None:
    other = await prepaid.setup.tenant(plan="team")
    with pytest.raises(Conflict):
        await top_up(prepaid.context, ACTOR, other, 100_000)
    nameless = await prepaid.setup.tenant(plan="pre", is_known=False)
    with pytest.raises(Invalid):
        await top_up(prepaid.context, ACTOR, nameless, 100_000)


async def test_money_taxed_at_one_rate_pays_no_bill_of_another(prepaid: PrepaidTenant) -> None:
    await prepaid.top_up(100_000)

    async def change(state: str | None, country: str) -> None:
        async with prepaid.context.database.session() as session:
            await set_profile(session, ACTOR, prepaid.tenant_id, profile(state, country))

    await change("27", "IN")
    with pytest.raises(Invalid, match="another rate"):
        await change(None, "US")
    await prepaid.pay((await prepaid.bills("receipt_voucher"))[0])
    with pytest.raises(Invalid, match="another rate"):
        await change(None, "US")
    await refund_unused(prepaid.context, ACTOR, prepaid.tenant_id, None, reason="moves")
    await change(None, "US")
