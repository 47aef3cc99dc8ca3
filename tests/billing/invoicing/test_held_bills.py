"""Drafts: bills held for an operator or a profile, or too small to collect."""

from dataclasses import replace

import msgspec
import pytest

from billing.invoicing.held_bills import release_held_bill, void_held_bill
from billing.models import BillingProfile
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Terms
from core.errors import Conflict
from core.tenancy.audit import Actor
from tests.billing.operator import DAY_MS, PERIOD, RUPEE_A_TOKEN, TERMS, OperatorSetup, profile, shown

ACTOR = Actor("test")


async def test_less_than_a_rupee_waits_until_it_is_more(setup: OperatorSetup) -> None:
    terms = Terms((MeterTerms(Meter.OUTPUT_TOKENS, 1_000, RUPEE_A_TOKEN // 2),), PastAllowance.BILL, 10_000_000)
    tenant_id = await setup.tenant_with_usage(1, terms=terms)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    assert (bill.state, bill.taxable_paise, bill.total_paise, bill.number) == ("waived", 50, 60, None)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=1)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    assert (bill.state, bill.taxable_paise, bill.total_paise) == ("open", 100, 118)
    await setup.add_usage(tenant_id, PERIOD, input_tokens=1)
    before = shown(await setup.bills(tenant_id))
    await setup.close()
    assert shown(await setup.bills(tenant_id)) == before


async def test_far_above_the_habit_is_held_for_an_operator(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(16_000, terms=replace(TERMS, ceiling_paise=10**9))
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    assert (bill.state, bill.number, bill.due_ms) == ("held", None, None)  # five times Rs 3,000 is less
    assert await setup.findings() == ["bill_held"]
    await setup.add_usage(tenant_id, PERIOD, input_tokens=1)  # which the plan does not price
    assert await setup.close() == 1
    assert [each.id for each in await setup.bills(tenant_id)] == [bill.id]

    await release_held_bill(setup.context, ACTOR, bill.id)
    (bill,) = await setup.bills(tenant_id)
    assert bill.state == "open"
    assert bill.number is not None
    assert await setup.findings() == []
    with pytest.raises(Conflict):
        await release_held_bill(setup.context, ACTOR, bill.id)


async def test_the_habit_is_the_median_of_the_last_bills(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant()
    for number, tokens in enumerate([4_000, 4_000, 4_000, 19_000, 21_000]):
        name = f"2026-0{number + 1}-05-a"
        await setup.period(tenant_id, name, ended_ms=(9 - number) * 30 * DAY_MS)
        await setup.add_usage(tenant_id, name, output_tokens=1_000 + tokens)
    await setup.close()
    assert [bill.state for bill in sorted(await setup.bills(tenant_id), key=lambda bill: bill.ends_ms)] == [
        "open",
        "open",
        "open",
        "open",
        "held",
    ]


async def test_a_correction_meanwhile_corrects_the_held_bill(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(16_000, terms=replace(TERMS, ceiling_paise=10**9))
    await setup.close()
    (held,) = await setup.bills(tenant_id)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-15_000)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    assert bill.id != held.id
    assert (bill.kind, bill.state, bill.taxable_paise) == ("overage", "open", 100_000)
    assert await setup.findings() == []
    with pytest.raises(Conflict):
        await release_held_bill(setup.context, ACTOR, held.id)


async def test_what_was_forgiven_is_not_asked_for_again(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(16_000, terms=replace(TERMS, ceiling_paise=10**9))
    await setup.close()
    (held,) = await setup.bills(tenant_id)
    await void_held_bill(setup.context, ACTOR, held.id, "a friend")
    await setup.add_usage(tenant_id, PERIOD, output_tokens=5)
    await setup.close()
    forgiven, bill = await setup.bills(tenant_id)
    assert (forgiven.state, forgiven.number, bill.state, bill.taxable_paise) == ("void", None, "open", 500)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-100)
    await setup.close()
    assert shown(await setup.bills(tenant_id)) == shown([forgiven, bill])  # the dropped bill is reduced first


async def test_voided_to_be_made_again(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(16_000, terms=replace(TERMS, ceiling_paise=10**9))
    await setup.close()
    (held,) = await setup.bills(tenant_id)
    await void_held_bill(setup.context, ACTOR, held.id, "the wrong terms", again=True)
    old, new = await setup.bills(tenant_id)
    assert (old.state, new.state, new.taxable_paise) == ("void", "held", held.taxable_paise)
    assert await setup.close() == 0


async def test_nobody_to_name_holds_until_there_is(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant(is_known=False)
    await setup.period(tenant_id, PERIOD)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=1_010)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    assert (bill.state, bill.reason, bill.tax) == ("held", "no billing profile", [])
    assert await setup.close() == 0
    with pytest.raises(Conflict):
        await release_held_bill(setup.context, ACTOR, bill.id)

    await setup.set_profile(tenant_id)
    assert await setup.close() == 1
    (bill,) = await setup.bills(tenant_id)
    assert (bill.state, bill.total_paise) == ("open", 1_180)
    assert await setup.findings() == []
    assert await setup.close() == 0


async def test_a_bill_is_taxed_by_the_profile_of_the_day_it_is_released(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(16_000, terms=replace(TERMS, ceiling_paise=10**9))
    await setup.close()
    (held,) = await setup.bills(tenant_id)
    assert [line["component"] for line in held.tax] == ["CGST", "SGST"]
    async with setup.context.database.session() as session:
        row = await session.get_one(BillingProfile, tenant_id)
        row.profile = msgspec.to_builtins(profile("27"))
    released = await release_held_bill(setup.context, ACTOR, held.id)
    (bill,) = await setup.bills(tenant_id)
    assert (bill.id, bill.state, bill.taxable_paise) == (released.id, "open", held.taxable_paise)
    assert [line["component"] for line in bill.tax] == ["IGST"]
    assert (await setup.close(), await setup.findings()) == (0, [])
