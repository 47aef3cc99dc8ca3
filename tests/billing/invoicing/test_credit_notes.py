"""Changes after a close: supplements and credit notes add up to the last reading."""

from dataclasses import replace
from random import Random

import pytest

from billing.collection.write_off import write_off_bill
from billing.ledger.balances import balances
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Reading, Terms, price_period
from core.tenancy.audit import Actor
from metering.pricing.tokens import NO_USAGE, Usage
from tests.billing.ledger_proof import proved
from tests.billing.operator import PERIOD, RUPEE_A_TOKEN, TERMS, OperatorSetup


async def test_a_late_settlement_is_a_supplement(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    await setup.add_usage(tenant_id, PERIOD, output_tokens=5)
    assert await setup.close() == 1
    first, second = await setup.bills(tenant_id)
    assert (first.taxable_paise, second.taxable_paise) == (700, 500)
    assert (first.kind, second.kind, second.seq) == ("overage", "overage", 2)
    assert (second.lines[0]["earlier_paise"], second.lines[0]["whole_paise"]) == (700, 1_200)


async def test_a_credit_is_a_credit_note_on_an_open_bill(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-3)
    await setup.close()
    bill, note = await setup.bills(tenant_id)
    assert (note.kind, note.state, note.taxable_paise, note.total_paise) == ("credit_note", "issued", -300, -354)
    assert note.refers_to == bill.id
    assert note.number is not None
    assert note.number.startswith("TCN/")
    assert (bill.state, bill.credited_paise) == ("open", 354)
    assert await setup.refunds(tenant_id) == []


async def test_a_credit_on_a_paid_bill_is_given_back(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    payment = await setup.pay(bill)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-3)
    await setup.close()
    await setup.close()
    bill, note = await setup.bills(tenant_id)
    assert (bill.state, bill.credited_paise) == ("paid", 354)
    assert await setup.refunds(tenant_id) == [(payment, 354, f"credit:{note.id}:{bill.id}")]
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-2)
    await setup.close()
    assert [paise for _, paise, _ in await setup.refunds(tenant_id)] == [354, 236]


async def test_a_credit_takes_from_the_newest_bill_first_and_no_more_than_it_has(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    await setup.add_usage(tenant_id, PERIOD, output_tokens=5)
    await setup.close()
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-9)
    await setup.close()
    first, second, *notes = await setup.bills(tenant_id)
    assert {note.refers_to: note.taxable_paise for note in notes} == {second.id: -500, first.id: -400}
    assert (first.state, first.credited_paise) == ("open", 472)
    assert (second.state, second.credited_paise) == ("credited", second.total_paise)


@pytest.mark.slow
@pytest.mark.parametrize("paise", [305, 306])  # whose tax is rounded down, and up
async def test_a_bill_that_is_credited_in_parts_gets_its_very_tax_back(setup: OperatorSetup, paise: int) -> None:
    rate = RUPEE_A_TOKEN * paise // 100
    terms = Terms((MeterTerms(Meter.OUTPUT_TOKENS, 0, rate),), PastAllowance.BILL, 10_000_000)
    tenant_id = await setup.tenant()
    await setup.period(tenant_id, PERIOD, terms=terms)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=7)
    await setup.close()
    for _ in range(7):
        await setup.add_usage(tenant_id, PERIOD, output_tokens=-1)
        await setup.close()
    bill, *notes = await setup.bills(tenant_id)
    assert len(notes) == 7
    assert bill.state == "credited"
    assert sum(note.total_paise for note in notes) == -bill.total_paise == -bill.credited_paise


async def test_the_ceiling_is_a_line(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7, terms=replace(TERMS, ceiling_paise=450))
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    assert bill.taxable_paise == 450
    assert [line["amount_paise"] for line in bill.lines] == [700, -250]
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-3)
    await setup.close()
    assert sum(each.taxable_paise for each in await setup.bills(tenant_id)) == 400


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_documents_sum_to_the_last_reading_however_often_it_is_closed(
    setup: OperatorSetup, seed: int
) -> None:
    draw = Random(seed)
    rates = (37_000_000, 4_100_000)
    terms = Terms(
        (MeterTerms(Meter.INPUT_TOKENS, 300, rates[0]), MeterTerms(Meter.OUTPUT_TOKENS, 100, rates[1])),
        PastAllowance.BILL,
        60_000,
    )
    tenants = await setup.tenants(20)
    await setup.periods(tenants, PERIOD, terms=terms)
    totals = dict.fromkeys(tenants, NO_USAGE)
    for _ in range(5):
        for tenant_id in draw.sample(tenants, 14):
            was = totals[tenant_id]
            counts = {"input_tokens": draw.randint(-900, 1_500), "output_tokens": draw.randint(-20, 30)}
            counts = {name: max(count, -getattr(was, name)) for name, count in counts.items()}
            await setup.add_usage(tenant_id, PERIOD, shard=draw.randint(0, 3), **counts)
            totals[tenant_id] = was + Usage(**counts)
        await setup.close()
    for tenant_id, usage in totals.items():
        bills = await setup.bills(tenant_id)
        assert sum(bill.taxable_paise for bill in bills) == price_period(Reading(usage), terms).taxable_paise
        for bill in bills:
            assert sum(line["amount_paise"] for line in bill.lines) == bill.taxable_paise
            assert bill.total_paise == bill.taxable_paise + sum(line["tax_paise"] for line in bill.tax)
            assert 0 <= bill.credited_paise <= max(0, bill.total_paise)
            notes = [note for note in bills if note.refers_to == bill.id and note.number]
            assert bill.credited_paise == -sum(note.total_paise for note in notes)
    everything = await setup.all_rows()
    assert await setup.close() == 0
    assert await setup.all_rows() == everything


async def test_a_credit_on_a_bill_that_was_written_off_owes_the_customer_nothing(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    await write_off_bill(setup.context, Actor("test"), bill.id, "gone")
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-3)
    await setup.close()
    bill, _ = await setup.bills(tenant_id)
    assert (bill.state, bill.credited_paise, bill.written_off_paise) == ("written_off", 354, 826 - 354)
    assert await setup.refunds(tenant_id) == []
    assert await setup.findings() == []
    await proved(setup.context)
    async with setup.context.database.session() as session:
        found = await balances(session, tenant_id)
    assert (found["receivable"], found["customer_credit"], found["write_off"]) == (0, 0, 472)
