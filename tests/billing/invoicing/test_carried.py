"""Amounts below a rupee are collected by the tenant's next bill: unbilled usage as a line, rests below the total."""

from dataclasses import replace

from billing.invoicing.issuing import document_of
from billing.models import Bill
from billing.models.bills import balance_of, due_of
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Terms
from core.clock import DAY_MS
from tests.billing.ledger_proof import proved
from tests.billing.operator import PERIOD, RUPEE_A_TOKEN, TERMS, OperatorSetup

LATER = "2026-02-04-abcdef"
KINDS = ("overage", "credit_note")
SMALL = replace(TERMS, meters=(MeterTerms(Meter.OUTPUT_TOKENS, 1_000, RUPEE_A_TOKEN // 2),))


async def later(setup: OperatorSetup, bill: Bill, tokens: int, terms: Terms = TERMS) -> Bill:
    """The bill of the tenant's next period."""
    await setup.period(bill.tenant_id, LATER, terms=terms, ended_ms=DAY_MS // 2)
    await setup.add_usage(bill.tenant_id, LATER, output_tokens=1_000 + tokens)
    await setup.close()
    return next(one for one in await setup.bills(bill.tenant_id) if one.period_id == LATER)


async def test_usage_too_small_to_bill_is_a_line_of_the_next_bill(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(1, terms=SMALL)
    await setup.close()
    (waived,) = await setup.bills(tenant_id)
    assert (waived.state, waived.taxable_paise, waived.number) == ("waived", 50, None)
    bill = await later(setup, waived, 7)
    assert [line["amount_paise"] for line in bill.lines] == [700, 50]
    assert (bill.taxable_paise, bill.total_paise) == (750, 886)
    (waived, _) = await setup.bills(tenant_id)
    assert (waived.state, waived.reason) == ("void", f"carried to {bill.number}")
    async with setup.context.database.session() as session:
        assert (await document_of(session, setup.context, bill)).taxable_paise == 750
    assert (await proved(setup.context))["receivable"] == 886


async def test_what_was_carried_is_not_billed_again(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(1, terms=SMALL)
    await setup.close()
    await later(setup, (await setup.bills(tenant_id))[0], 7)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=4)
    await setup.close()
    bills = await setup.bills(tenant_id)
    assert sum(bill.taxable_paise for bill in bills if bill.number) == 700 + 5 * 50
    await setup.add_usage(tenant_id, LATER, output_tokens=-7)
    await setup.close()
    bills = await setup.bills(tenant_id)
    assert sum(bill.taxable_paise for bill in bills if bill.number) == 5 * 50
    await proved(setup.context)


async def test_two_amounts_too_small_make_one_that_is_not(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(1, terms=SMALL)
    await setup.close()
    bill = await later(setup, (await setup.bills(tenant_id))[0], 1, SMALL)
    assert (bill.state, bill.taxable_paise, bill.total_paise) == ("open", 100, 118)


async def test_the_rest_of_a_bill_is_paid_with_the_next(setup: OperatorSetup) -> None:
    terms = Terms((MeterTerms(Meter.OUTPUT_TOKENS, 1_000, RUPEE_A_TOKEN // 2),), PastAllowance.BILL, 10_000_000)
    tenant_id = await setup.tenant_with_usage(7, terms=terms)
    await setup.close()
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-6)
    await setup.close()
    first, _ = await setup.bills(tenant_id)
    assert (first.state, balance_of(first), due_of(first)) == ("credited", 60, 0)
    second = await later(setup, first, 7)
    first = (await setup.bills(tenant_id))[0]
    assert (balance_of(first), first.carried_paise) == (0, 60)
    assert (second.total_paise, due_of(second), second.carried_paise) == (826, 886, -60)
    async with setup.context.database.session() as session:
        document = await document_of(session, setup.context, second)
    assert (document.total_paise, document.due_paise, document.carried_paise) == (826, 886, 60)
    assert (await proved(setup.context))["receivable"] == 886


async def test_a_bill_that_carries_a_credit_is_credited_by_no_more_than_its_total(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7, terms=SMALL)
    await setup.close()
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-1)
    await setup.close()
    first = (await setup.bills(tenant_id))[0]
    bill = await later(setup, first, 7)
    assert (bill.taxable_paise, bill.total_paise) == (650, 768)
    await setup.add_usage(tenant_id, LATER, output_tokens=-7)
    await setup.close()
    bills = await setup.bills(tenant_id)
    bill, note = (next(one for one in bills if one.period_id == LATER and one.kind == kind) for kind in KINDS)
    assert (bill.state, bill.credited_paise, note.total_paise) == ("credited", 768, -768)
    assert sum(line["amount_paise"] for line in note.lines) == note.taxable_paise == -650
    assert await setup.findings() == []
    await proved(setup.context)
