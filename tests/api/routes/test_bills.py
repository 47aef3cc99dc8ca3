"""Bills over HTTP: what a tenant sees of its own, and an operator of all."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from billing.models import Bill, Charge
from core.clock import now_ms
from core.ids import uuid7
from tests.api.cli.test_cli import Naka
from tests.api.conftest import Api
from tests.billing.operator import DAY_MS, PERIOD, TERMS, OperatorSetup
from tests.harness import ROOT, Account


@pytest.fixture
async def setup(api: Api) -> OperatorSetup:
    """The desk of the application, with an operator and a plan."""
    return await OperatorSetup.open(api.app.state.runtime.billing)


async def billed(setup: OperatorSetup, tokens: int, *, is_closed: bool = True) -> UUID:
    """A tenant with an ended period, closed or not."""
    tenant_id = await setup.tenant()
    await setup.period(tenant_id, PERIOD, terms=replace(TERMS, ceiling_paise=10**9))
    await setup.add_usage(tenant_id, PERIOD, output_tokens=1_000 + tokens)
    if is_closed:
        await setup.close()
    return tenant_id


async def get(api: Api, account: Account, path: str, status: int = 200) -> Any:
    """A tenant's own view."""
    answer = await api.http.get(f"/v1/billing{path}", headers=account.headers)
    assert answer.status_code == status, answer.text
    return answer if path.endswith((".html", ".pdf")) else answer.json()


async def with_link(setup: OperatorSetup, bill: Bill) -> None:
    """Its charge, submitted."""
    async with setup.context.tenant_transaction(bill.tenant_id) as session:
        session.add(
            Charge(
                tenant_id=bill.tenant_id,
                id=uuid7(),
                bill_id=bill.id,
                attempt=1,
                instrument="payment_link",
                state="submitted",
                amount_paise=bill.total_paise,
                reference=f"{bill.id.hex}-1",
                short_url="https://rzp.io/i/abc",
                created_ms=now_ms(),
            )
        )


@pytest.mark.slow
async def test_a_tenants_admin_sees_its_bills(api: Api, setup: OperatorSetup) -> None:
    tenant_id, other = await billed(setup, 7), await billed(setup, 9)
    admin = await api.tenant_admin(tenant_id)
    (bill,) = await setup.bills(tenant_id)
    (foreign,) = await setup.bills(other)
    await with_link(setup, bill)
    (item,) = (await get(api, admin, "/bills"))["items"]
    assert item["id"] == str(bill.id)
    assert (item["state"], item["total_paise"], item["due_paise"], item["total"]) == ("open", 826, 826, "₹8.26")
    assert item["pay_url"] == "https://rzp.io/i/abc"
    assert item["number"] == bill.number
    detail = await get(api, admin, f"/bills/{bill.id}")
    assert detail["lines"][0]["excess"] == 7
    assert detail["customer"]["legal_name"] == "Nimbus Tools"
    assert (await get(api, admin, "/bills?state=paid"))["items"] == []
    for kind in ("", "/document.html", "/document.pdf"):
        answer = await api.http.get(f"/v1/billing/bills/{foreign.id}{kind}", headers=admin.headers)
        assert answer.status_code == 404


@pytest.mark.slow
async def test_a_bill_as_html_and_as_pdf(api: Api, setup: OperatorSetup) -> None:
    tenant_id = await billed(setup, 7)
    admin = await api.tenant_admin(tenant_id)
    (bill,) = await setup.bills(tenant_id)
    name = (bill.number or "").replace("/", "-")
    page = await get(api, admin, f"/bills/{bill.id}/document.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'filename="{name}.html"' in page.headers["content-disposition"]
    assert bill.number in page.text
    assert "Nimbus Tools" in page.text
    pdf = await get(api, admin, f"/bills/{bill.id}/document.pdf")
    assert pdf.headers["content-type"] == "application/pdf"
    assert f'filename="{name}.pdf"' in pdf.headers["content-disposition"]
    assert pdf.content.startswith(b"%PDF-")


async def test_the_upcoming_bill_is_a_preview(api: Api, setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant()
    admin = await api.tenant_admin(tenant_id)
    await get(api, admin, "/upcoming", 404)
    await setup.period(tenant_id, PERIOD, ended_ms=-DAY_MS)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=1_010)
    before = await setup.all_rows()
    found = await get(api, admin, "/upcoming")
    assert (found["period"], found["taxable_paise"], found["total_paise"]) == (PERIOD, 1_000, 1_180)
    assert found["lines"][0]["quantity"] == 1_010
    assert found["is_taxed"] is True
    assert await setup.all_rows() == before


async def test_the_upcoming_bill_of_a_month_on_a_plan(api: Api, setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant(plan="team", is_known=False)
    found = await get(api, await api.tenant_admin(tenant_id), "/upcoming")
    assert (found["kind"], found["plan"], found["taxable_paise"], found["is_taxed"]) == ("month", "team", 0, False)


async def test_an_operator_releases_and_voids(api: Api, setup: OperatorSetup) -> None:
    operator = await api.platform_admin()
    one, two = await billed(setup, 30_000), await billed(setup, 30_000)
    admin = await api.tenant_admin(one)
    held = (await api.call(operator, "GET", "/bills?state=held", expect=200)).json()["items"]
    by_tenant = {item["tenant_id"]: item["id"] for item in held}
    assert set(by_tenant) == {str(one), str(two)}
    assert (await get(api, admin, "/bills"))["items"] == []  # a draft is not the tenant's to see
    await get(api, admin, f"/bills/{by_tenant[str(one)]}", 404)

    await api.call(admin, "POST", f"/bills/{by_tenant[str(one)]}/release", expect=403)
    released = await api.call(operator, "POST", f"/bills/{by_tenant[str(one)]}/release", expect=200)
    assert released.json()["state"] == "open"
    await api.call(operator, "POST", f"/bills/{by_tenant[str(one)]}/release", expect=409)
    voided = await api.call(
        operator, "POST", f"/bills/{by_tenant[str(two)]}/void", json={"reason": "a friend"}, expect=200
    )
    assert (voided.json()["state"], voided.json()["reason"]) == ("void", "a friend")
    assert await api.audit(one) == ["bill.release"]
    assert await api.audit(two) == ["bill.void"]
    assert len((await get(api, admin, "/bills"))["items"]) == 1


async def test_an_operator_closes_now(api: Api, setup: OperatorSetup) -> None:
    operator = await api.platform_admin()
    tenant_id = await billed(setup, 7, is_closed=False)
    assert (await api.call(operator, "POST", f"/tenants/{tenant_id}/close", expect=200)).json() == {"closed": 1}
    assert (await api.call(operator, "POST", f"/tenants/{tenant_id}/close", expect=200)).json() == {"closed": 0}
    await api.call(operator, "POST", f"/tenants/{uuid7()}/close", expect=404)
    items = (await api.call(operator, "GET", f"/bills?tenant_id={tenant_id}", expect=200)).json()["items"]
    assert [item["taxable_paise"] for item in items] == [700]


@pytest.mark.slow
async def test_pages_of_bills(api: Api, setup: OperatorSetup) -> None:
    operator = await api.platform_admin()
    for _ in range(3):
        await billed(setup, 7)
    first = (await api.call(operator, "GET", "/bills?limit=2", expect=200)).json()
    second = (await api.call(operator, "GET", f"/bills?limit=2&cursor={first['next']}", expect=200)).json()
    assert (len(first["items"]), len(second["items"]), second["next"]) == (2, 1, None)
    assert len({item["id"] for item in first["items"] + second["items"]}) == 3


@pytest.mark.slow
async def test_the_command_line(setup: OperatorSetup, database_url: str, redis_url: str, tmp_path: Path) -> None:
    tenant_id = await billed(setup, 30_000, is_closed=False)
    program = Naka(tmp_path, {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)})

    async def naka(*words: str) -> Any:
        """In a thread: a command has an event loop of its own."""
        return await asyncio.to_thread(program.json, "bill", *words)

    assert await naka("close", str(tenant_id)) == {"closed": 1}
    (item,) = await naka("list", "--tenant", str(tenant_id), "--state", "held")
    assert (await naka("void", item["id"], "--reason", "wrong", "--again"))["state"] == "void"
    (again,) = await naka("list", "--state", "held")
    assert (await naka("release", again["id"]))["state"] == "open"
    assert (await naka("show", again["id"]))["taxable_paise"] == 3_000_000
