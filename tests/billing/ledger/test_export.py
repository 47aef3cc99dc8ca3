"""A month of the ledger as lines whose debits and credits are equal, and as vouchers of Tally."""

from contextlib import AbstractAsyncContextManager
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from billing.ledger import export
from billing.ledger.export import booked_entries, tally_xml
from core.clock import now_ms
from tests.billing.operator import PERIOD, OperatorSetup


async def test_a_month_is_exported_line_by_line(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    await setup.pay(bill)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-3)
    await setup.close()
    database, zone = setup.context.database, setup.context.zone

    def transactions() -> AbstractAsyncContextManager[AsyncSession]:
        return database.session()

    async def read(starts_ms: int, ends_ms: int) -> list[export.BookedEntry]:
        batches = booked_entries(transactions, zone, starts_ms, ends_ms)
        return [entry async for batch in batches for entry in batch]

    entries = await read(now_ms() - 60_000, now_ms() + 1)
    assert [entry.kind for entry in entries] == ["bill", "payment", "credit_note"]
    assert [entry.number[:4] for entry in entries] == ["TIN/", "TIN/", "TCN/"]
    assert await read(now_ms() + 1, now_ms() + 60_000) == []
    lines = [dict(zip(export.COLUMNS, line, strict=True)) for entry in entries for line in entry.lines()]
    assert [(line["account"], line["debit"], line["credit"]) for line in lines] == [
        ("receivable", "8.26", ""),
        ("revenue", "", "7.00"),
        ("gst_payable", "", "1.26"),
        ("receivable", "", "8.26"),
        ("cash", "8.26", ""),
        ("revenue", "3.00", ""),
        ("gst_payable", "0.54", ""),
        ("customer_credit", "", "3.54"),
    ]
    text = "".join([part async for part in tally_xml(booked_entries(transactions, zone, 0, now_ms() + 1))])
    vouchers = ET.fromstring(text).findall(".//VOUCHER")  # noqa: S314 - our own text
    assert [voucher.get("VCHTYPE") for voucher in vouchers] == ["Sales", "Receipt", "Credit Note"]
    for voucher in vouchers:
        assert sum(int((amount.text or "0").replace(".", "")) for amount in voucher.iter("AMOUNT")) == 0
    assert vouchers[0].findtext(".//LEDGERNAME", "").startswith("Receivables: t")


@pytest.mark.slow
async def test_pages_of_entries_leave_none_out(setup: OperatorSetup) -> None:
    for tenant_id in await setup.tenants(7):
        await setup.period(tenant_id)
        await setup.add_usage(tenant_id, PERIOD, output_tokens=1_005)
    await setup.close()
    export._BATCH, was = 3, export._BATCH
    try:
        batches = booked_entries(setup.context.database.session, setup.context.zone, 0, now_ms() + 1)
        sizes = [len(batch) async for batch in batches]
    finally:
        export._BATCH = was
    assert sizes == [3, 3, 1]
