"""Closing periods: the same bills whoever closes, whenever, and how often."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from billing.invoicing import period_close as closes
from billing.invoicing.period_close import PATIENCE_MS, close_one
from billing.models import BillingPeriod
from billing.rating.overage import PastAllowance, Terms
from tests.billing.office import DAY_MS, PERIOD, RUPEE_A_TOKEN, TERMS, Office, profile, shown


async def test_a_period_becomes_a_bill_with_its_lines_and_its_tax(office: Office) -> None:
    tenant_id = await office.used(7)
    await office.use(tenant_id, PERIOD, shard=5, output_tokens=5, input_tokens=9)
    assert await office.close() == 1

    (bill,) = await office.bills(tenant_id)
    assert (bill.kind, bill.state, bill.taxable_paise, bill.total_paise) == ("overage", "open", 1_200, 1_416)
    assert [(line["component"], line["tax_paise"]) for line in bill.tax] == [("CGST", 108), ("SGST", 108)]
    assert bill.number is not None
    assert bill.number.startswith("TIN/")
    assert bill.due_ms == (bill.issued_ms or 0) + 7 * DAY_MS
    assert bill.customer["legal_name"] == "Nimbus Tools"
    (line,) = bill.lines
    assert (line["quantity"], line["allowance"], line["excess"]) == (1_012, 1_000, 12)
    assert (line["rate_paise"], line["unrounded_numerator"]) == (RUPEE_A_TOKEN, 12 * RUPEE_A_TOKEN)
    async with office.context.database.session() as session:
        period = await session.get_one(BillingPeriod, (tenant_id, PERIOD))
    assert period.state == "closed"
    assert period.reading is not None
    assert period.reading["usage"]["input_tokens"] == 9


@pytest.mark.parametrize("again", [1, 3])
async def test_closing_again_changes_nothing(office: Office, again: int) -> None:
    await office.used(7)
    await office.used(0)
    assert await office.close() == 2
    before = await office.everything()
    for _ in range(again):
        assert await office.close() == 0
    assert await office.everything() == before


async def test_a_period_that_goes_on_is_not_closed(office: Office) -> None:
    tenant_id = await office.used(7, ended_ms=-DAY_MS)
    assert await office.close() == 0
    assert not await close_one(office.context, tenant_id, PERIOD)
    assert await office.bills() == []


@pytest.mark.parametrize(
    ("terms", "more"),
    [
        (replace(TERMS, past_allowance=PastAllowance.BLOCK), {}),
        (replace(TERMS, past_allowance=PastAllowance.BLOCK), {"kind": "month"}),
        (TERMS, {"kind": "trial"}),
    ],
)
async def test_what_does_not_bill_is_closed_without_a_bill(office: Office, terms: Terms, more: dict[str, Any]) -> None:
    await office.used(50, terms=terms, **more)
    assert await office.close() == 1
    assert await office.bills() == []
    assert await office.close() == 0


async def test_late_and_several_at_once_are_the_same_bills(office: Office) -> None:
    late, punctual = await office.tenants(2)
    names = ["2026-01-05-a", "2026-02-05-a", "2026-03-05-a"]
    for months_ago, (name, tokens) in enumerate(zip(names, (4, 0, 9), strict=True)):
        for tenant_id in (late, punctual):
            await office.period(tenant_id, name, ended_ms=(3 - months_ago) * 30 * DAY_MS)
            await office.use(tenant_id, name, output_tokens=1_000 + tokens)
        await close_one(office.context, punctual, name)
    await office.close()
    assert [(bill.period_id, *shown([bill])) for bill in await office.bills(late)] == [
        (bill.period_id, *shown([bill])) for bill in await office.bills(punctual)
    ]
    assert sorted(bill.taxable_paise for bill in await office.bills(late)) == [400, 900]


async def test_it_waits_for_an_open_request_then_closes(office: Office) -> None:
    tenant_id = await office.used(7, ended_ms=1_000)
    request_id = await office.open_request(tenant_id, PERIOD)
    assert await office.close() == 0
    await office.settle(tenant_id, request_id)
    await office.use(tenant_id, PERIOD, output_tokens=1)
    assert await office.close() == 1
    (bill,) = await office.bills(tenant_id)
    assert bill.taxable_paise == 800


async def test_it_does_not_wait_for_ever(office: Office) -> None:
    bound_ms = office.context.settings.request_deadline_s * 1000 + PATIENCE_MS
    tenant_id = await office.used(7, ended_ms=bound_ms + 1_000)
    await office.open_request(tenant_id, PERIOD)
    assert await office.close() == 1
    other = await office.used(7, ended_ms=bound_ms - 60_000)
    await office.open_request(other, PERIOD)
    assert await office.close() == 0


async def test_a_request_of_another_period_is_not_waited_for(office: Office) -> None:
    tenant_id = await office.used(7, ended_ms=1_000)
    await office.open_request(tenant_id, "2026-02-05-abcdef")
    assert await office.close() == 1


async def test_what_breaks_in_the_middle_leaves_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant_id = await office.used(7)
    before = await office.everything()

    async def breaks(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(closes, "project", breaks)
        assert await office.close() == 0
    after = await office.everything()
    assert after.pop("billing_findings") != before.pop("billing_findings")
    assert after == before
    assert await office.findings() == ["close_failed"]
    assert await office.close() == 1
    (bill,) = await office.bills(tenant_id)
    assert bill.number is not None
    assert bill.number.endswith("/0000001")


async def test_one_that_fails_stops_no_other(office: Office) -> None:
    broken, well = await office.tenants(2)
    await office.period(broken, PERIOD)
    await office.period(well, PERIOD)
    await office.use([broken, well], PERIOD, output_tokens=1_002)
    async with office.context.database.session() as session:
        (await session.get_one(BillingPeriod, (broken, PERIOD))).terms = {"what": "is this"}
    assert await office.close() == 1
    assert len(await office.bills(well)) == 1
    assert await office.findings() == ["close_failed"]


async def test_two_at_once_make_one_bill(office: Office) -> None:
    tenant_id = await office.used(7)
    done = await asyncio.gather(*(close_one(office.context, tenant_id, PERIOD) for _ in range(4)))
    assert sorted(done) == [False, False, False, True]
    assert len(await office.bills(tenant_id)) == 1


@pytest.mark.parametrize(
    ("state", "country", "tax"),
    [
        ("29", "IN", [("CGST", 9), ("SGST", 9)]),
        ("27", "IN", [("IGST", 18)]),
        (None, "DE", []),
    ],
)
async def test_the_tax_is_that_of_the_place(
    office: Office, state: str | None, country: str, tax: list[tuple[str, int]]
) -> None:
    tenant_id = await office.tenant(named=profile(state, country))
    await office.period(tenant_id, PERIOD)
    await office.use(tenant_id, PERIOD, output_tokens=1_001)
    await office.close()
    (bill,) = await office.bills(tenant_id)
    assert [(line["component"], line["tax_paise"]) for line in bill.tax] == tax
    assert bill.total_paise == 100 + sum(paise for _, paise in tax)


async def test_a_past_month_that_nothing_made_a_period_of(office: Office) -> None:
    billed, blocked = await office.tenant(plan="team"), await office.tenant()
    await office.use([billed, blocked], "2026-01", output_tokens=1_004)
    assert await office.close() == 1
    (bill,) = await office.bills()
    assert (bill.tenant_id, bill.period_id, bill.taxable_paise) == (billed, "2026-01", 400)
    assert await office.close() == 0
