"""Closing periods: the same bills for any worker, time and repetition."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from billing.invoicing import period_close as closes
from billing.invoicing.period_close import PATIENCE_MS, close_if_due
from billing.models import BillingPeriod
from billing.rating.overage import PastAllowance, Terms
from tests.billing.operator import DAY_MS, PERIOD, RUPEE_A_TOKEN, TERMS, OperatorSetup, profile, shown


async def test_a_period_becomes_a_bill_with_its_lines_and_its_tax(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.add_usage(tenant_id, PERIOD, shard=5, output_tokens=5, input_tokens=9)
    assert await setup.close() == 1

    (bill,) = await setup.bills(tenant_id)
    assert (bill.kind, bill.state, bill.taxable_paise, bill.total_paise) == ("overage", "open", 1_200, 1_416)
    assert [(line["component"], line["tax_paise"]) for line in bill.tax] == [("CGST", 108), ("SGST", 108)]
    assert bill.number is not None
    assert bill.number.startswith("TIN/")
    assert bill.due_ms == (bill.issued_ms or 0) + 7 * DAY_MS
    assert bill.customer["legal_name"] == "Nimbus Tools"
    (line,) = bill.lines
    assert (line["quantity"], line["allowance"], line["excess"]) == (1_012, 1_000, 12)
    assert (line["rate_paise"], line["unrounded_numerator"]) == (RUPEE_A_TOKEN, 12 * RUPEE_A_TOKEN)
    async with setup.context.database.session() as session:
        period = await session.get_one(BillingPeriod, (tenant_id, PERIOD))
    assert period.state == "closed"
    assert period.reading is not None
    assert period.reading["usage"]["input_tokens"] == 9


@pytest.mark.parametrize("again", [1, 3])
async def test_closing_again_changes_nothing(setup: OperatorSetup, again: int) -> None:
    await setup.tenant_with_usage(7)
    await setup.tenant_with_usage(0)
    assert await setup.close() == 2
    before = await setup.all_rows()
    for _ in range(again):
        assert await setup.close() == 0
    assert await setup.all_rows() == before


async def test_a_period_that_goes_on_is_not_closed(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7, ended_ms=-DAY_MS)
    assert await setup.close() == 0
    assert not await close_if_due(setup.context, tenant_id, PERIOD)
    assert await setup.bills() == []


@pytest.mark.parametrize(
    ("terms", "more"),
    [
        (replace(TERMS, past_allowance=PastAllowance.BLOCK), {}),
        (replace(TERMS, past_allowance=PastAllowance.BLOCK), {"kind": "month"}),
        (TERMS, {"kind": "trial"}),
    ],
)
async def test_terms_that_bill_nothing_close_without_a_bill(
    setup: OperatorSetup, terms: Terms, more: dict[str, Any]
) -> None:
    await setup.tenant_with_usage(50, terms=terms, **more)
    assert await setup.close() == 1
    assert await setup.bills() == []
    assert await setup.close() == 0


async def test_late_and_several_at_once_are_the_same_bills(setup: OperatorSetup) -> None:
    late, punctual = await setup.tenants(2)
    names = ["2026-01-05-a", "2026-02-05-a", "2026-03-05-a"]
    for months_ago, (name, tokens) in enumerate(zip(names, (4, 0, 9), strict=True)):
        for tenant_id in (late, punctual):
            await setup.period(tenant_id, name, ended_ms=(3 - months_ago) * 30 * DAY_MS)
            await setup.add_usage(tenant_id, name, output_tokens=1_000 + tokens)
        await close_if_due(setup.context, punctual, name)
    await setup.close()
    assert [(bill.period_id, *shown([bill])) for bill in await setup.bills(late)] == [
        (bill.period_id, *shown([bill])) for bill in await setup.bills(punctual)
    ]
    assert sorted(bill.taxable_paise for bill in await setup.bills(late)) == [400, 900]


async def test_it_waits_for_an_open_request_then_closes(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7, ended_ms=1_000)
    request_id = await setup.open_request(tenant_id, PERIOD)
    assert await setup.close() == 0
    await setup.settle(tenant_id, request_id)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=1)
    assert await setup.close() == 1
    (bill,) = await setup.bills(tenant_id)
    assert bill.taxable_paise == 800


async def test_it_does_not_wait_for_ever(setup: OperatorSetup) -> None:
    bound_ms = setup.context.settings.request_deadline_s * 1000 + PATIENCE_MS
    tenant_id = await setup.tenant_with_usage(7, ended_ms=bound_ms + 1_000)
    await setup.open_request(tenant_id, PERIOD)
    assert await setup.close() == 1
    other = await setup.tenant_with_usage(7, ended_ms=bound_ms - 60_000)
    await setup.open_request(other, PERIOD)
    assert await setup.close() == 0


async def test_a_request_of_another_period_is_not_waited_for(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7, ended_ms=1_000)
    await setup.open_request(tenant_id, "2026-02-05-abcdef")
    assert await setup.close() == 1


async def test_what_breaks_in_the_middle_leaves_nothing(setup: OperatorSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    before = await setup.all_rows()

    async def breaks(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(closes, "project", breaks)
        assert await setup.close() == 0
    after = await setup.all_rows()
    assert after.pop("billing_findings") != before.pop("billing_findings")
    assert after == before
    assert await setup.findings() == ["close_failed"]
    assert await setup.close() == 1
    (bill,) = await setup.bills(tenant_id)
    assert bill.number is not None
    assert bill.number.endswith("/0000001")


async def test_one_that_fails_stops_no_other(setup: OperatorSetup) -> None:
    broken, well = await setup.tenants(2)
    await setup.period(broken, PERIOD)
    await setup.period(well, PERIOD)
    await setup.add_usage([broken, well], PERIOD, output_tokens=1_002)
    async with setup.context.database.session() as session:
        (await session.get_one(BillingPeriod, (broken, PERIOD))).terms = {"what": "is this"}
    assert await setup.close() == 1
    assert len(await setup.bills(well)) == 1
    assert await setup.findings() == ["close_failed"]


async def test_two_at_once_make_one_bill(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    done = await asyncio.gather(*(close_if_due(setup.context, tenant_id, PERIOD) for _ in range(4)))
    assert sorted(done) == [False, False, False, True]
    assert len(await setup.bills(tenant_id)) == 1


@pytest.mark.parametrize(
    ("state", "country", "tax"),
    [
        ("29", "IN", [("CGST", 9), ("SGST", 9)]),
        ("27", "IN", [("IGST", 18)]),
        (None, "DE", []),
    ],
)
async def test_the_tax_is_that_of_the_place(
    setup: OperatorSetup, state: str | None, country: str, tax: list[tuple[str, int]]
) -> None:
    tenant_id = await setup.tenant(named=profile(state, country))
    await setup.period(tenant_id, PERIOD)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=1_001)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    assert [(line["component"], line["tax_paise"]) for line in bill.tax] == tax
    assert bill.total_paise == 100 + sum(paise for _, paise in tax)


async def test_a_past_month_that_nothing_made_a_period_of(setup: OperatorSetup) -> None:
    billed, blocked = await setup.tenant(plan="team"), await setup.tenant()
    await setup.add_usage([billed, blocked], "2026-01", output_tokens=1_004)
    assert await setup.close() == 1
    (bill,) = await setup.bills()
    assert (bill.tenant_id, bill.period_id, bill.taxable_paise) == (billed, "2026-01", 400)
    assert await setup.close() == 0
