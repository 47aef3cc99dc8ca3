"""The ledger over HTTP and at the command line, debts given up, and refunds sent again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from billing.models import Bill, Refund
from core.clock import now_ms, to_datetime
from core.ids import uuid7
from tests.api.cli.test_cli import Naka
from tests.api.conftest import Api
from tests.billing.operator import OperatorSetup
from tests.harness import ROOT


@pytest.fixture
async def setup(api: Api) -> OperatorSetup:
    """The desk of the application, with an operator and a plan."""
    return await OperatorSetup.open(api.app.state.runtime.billing)


def this_month(setup: OperatorSetup) -> str:
    """The operator's month."""
    return f"{to_datetime(now_ms()).astimezone(setup.context.zone):%Y-%m}"


async def open_bill(setup: OperatorSetup) -> Bill:
    """An open bill of Rs 8.26."""
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    (bill,) = await setup.bills(tenant_id)
    return bill


@pytest.mark.slow
async def test_balances_and_a_month_of_entries(api: Api, setup: OperatorSetup) -> None:
    operator, bill = await api.platform_admin(), await open_bill(setup)
    await setup.pay(bill)
    found = (await api.call(operator, "GET", f"/ledger?tenant_id={bill.tenant_id}", expect=200)).json()
    assert (found["cash"], found["receivable"], found["revenue"], found["gst_payable"]) == (826, 0, -700, -126)
    assert found["differences"] == []
    month = this_month(setup)
    csv = await api.call(operator, "GET", f"/ledger/export?month={month}", expect=200)
    assert csv.headers["content-disposition"] == f'attachment; filename="ledger-{month}.csv"'
    lines = csv.text.lstrip("\ufeff").splitlines()
    assert lines[0].split(",")[-3:] == ["account", "debit", "credit"]
    assert [line.split(",")[-3:] for line in lines[1:]] == [
        ["receivable", "8.26", ""],
        ["revenue", "", "7.00"],
        ["gst_payable", "", "1.26"],
        ["receivable", "", "8.26"],
        ["cash", "8.26", ""],
    ]
    tally = await api.call(operator, "GET", f"/ledger/export?month={month}&format=tally", expect=200)
    assert tally.headers["content-type"].startswith("application/xml")
    assert tally.text.count("<VOUCHER ") == 2
    await api.call(operator, "GET", "/ledger/export?month=2026-13", expect=422)
    tenant = await api.tenant_admin(bill.tenant_id)
    for path in ("/ledger", f"/ledger/export?month={month}"):
        await api.call(tenant, "GET", path, expect=403)


@pytest.mark.slow
async def test_a_changed_row_is_a_difference(api: Api, setup: OperatorSetup) -> None:
    operator, bill = await api.platform_admin(), await open_bill(setup)
    async with setup.context.database.session() as session:
        await session.execute(update(Bill).values(paid_paise=100))
    found = (await api.call(operator, "GET", "/ledger", expect=200)).json()["differences"]
    assert {one["account"]: (one["booked"], one["derived"]) for one in found} == {
        "receivable": (826, 726),
        "customer_credit": (0, 100),
    }
    assert {one["tenant_id"] for one in found} == {str(bill.tenant_id)}


async def test_a_debt_is_given_up(api: Api, setup: OperatorSetup) -> None:
    operator, bill = await api.platform_admin(), await open_bill(setup)
    path, why = f"/bills/{bill.id}/write-off", {"reason": "insolvent"}
    await api.call(await api.tenant_admin(bill.tenant_id), "POST", path, json=why, expect=403)
    answer = (await api.call(operator, "POST", path, json=why, expect=200)).json()
    assert (answer["state"], answer["due_paise"], answer["total_paise"]) == ("written_off", 0, 826)
    await api.call(operator, "POST", path, json=why, expect=409)
    found = (await api.call(operator, "GET", "/ledger", expect=200)).json()
    assert (found["write_off"], found["receivable"], found["gst_payable"]) == (826, 0, -126)
    assert found["differences"] == []


async def test_a_failed_refund_is_sent_again(api: Api, setup: OperatorSetup) -> None:
    operator, bill = await api.platform_admin(), await open_bill(setup)
    row = Refund(
        tenant_id=bill.tenant_id,
        id=uuid7(),
        payment_id=await setup.pay(bill),
        amount_paise=500,
        cause="excess:x",
        state="failed",
        created_ms=now_ms(),
    )
    async with setup.context.tenant_transaction(bill.tenant_id) as session:
        session.add(row)
    path, why = f"/refunds/{row.id}/retry", {"reason": "new account"}
    sent = (await api.call(operator, "POST", path, json=why, expect=200)).json()
    assert (sent["state"], sent["amount_paise"], sent["cause"]) == ("intended", 500, f"excess:x:again:{row.id}")
    await api.call(operator, "POST", f"/refunds/{sent['id']}/retry", json=why, expect=409)


@pytest.mark.slow
async def test_the_command_line(setup: OperatorSetup, database_url: str, redis_url: str, tmp_path: Path) -> None:
    bill = await open_bill(setup)
    program = Naka(tmp_path, {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)})

    async def naka(*words: str) -> Any:
        """In a thread: a command has an event loop of its own."""
        return await asyncio.to_thread(program.json, *words)

    assert (await naka("ledger", "balances"))["receivable"] == 826
    async with setup.context.database.session() as session:  # as a process of an older version takes a payment
        await session.execute(update(Bill).where(Bill.id == bill.id).values(paid_paise=100))
    (found, _) = (await naka("ledger", "balances"))["differences"]
    assert (found["account"], found["booked"], found["derived"]) == ("receivable", 826, 726)
    after = await naka("ledger", "adjust", str(bill.tenant_id), "--reason", "an old worker took it")
    assert (after["receivable"], after["differences"]) == (726, [])
    async with setup.context.database.session() as session:
        await session.execute(update(Bill).where(Bill.id == bill.id).values(paid_paise=0))
    again = await naka("ledger", "adjust", str(bill.tenant_id), "--reason", "and gave it back")
    assert (again["receivable"], again["customer_credit"]) == (826, 0)
    assert (await naka("bill", "write-off", str(bill.id), "--reason", "gone"))["state"] == "written_off"
    assert (await naka("ledger", "balances", "--tenant", str(bill.tenant_id)))["write_off"] == 826
    assert (await naka("reconcile"))["ledger"] == []
