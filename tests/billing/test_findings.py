"""A finding closes by itself once what it found is resolved, and opens again if it comes back."""

from typing import Any

import pytest
from sqlalchemy import select, text

from billing.context import BillingContext
from billing.findings import close_finding, record_finding
from billing.findings.resolved import _gone, resolve_findings, resolve_others
from billing.models import BillingFinding, Charge, Refund
from billing.payments.refunds import send_again
from billing.payments.unplaced import report_unplaced
from billing.razorpay.entities import Payment as RazorpayPayment
from core.clock import now_ms
from core.errors import Conflict
from core.ids import uuid7
from core.tenancy.audit import Actor
from tests.billing.billed_tenant import PAISE, BilledTenant
from tests.simulated_razorpay import Razorpay

OPERATOR = Actor("cli:test")
BY_CODE = {"extra_addon", "extra_subscription", "unexplained", "ledger_differs"}
"""Kinds that the code that finds them closes."""


@pytest.fixture
async def tenant(context: BillingContext, razorpay: Razorpay) -> BilledTenant:
    """A tenant."""
    return await BilledTenant.open(context, razorpay)


async def open_kinds(tenant: BilledTenant) -> list[str]:
    """The kinds of findings that are open after a run of the duty."""
    async with tenant.context.database.session() as session:
        await resolve_findings(session, now_ms())
        query = select(BillingFinding.kind).where(BillingFinding.closed_ms.is_(None))
        return sorted(await session.scalars(query))


async def found(tenant: BilledTenant, kind: str, key: str = "", **detail: Any) -> None:
    """Records a finding."""
    async with tenant.context.database.session() as session:
        await record_finding(session, key or kind, kind, tenant_id=tenant.tenant_id, **detail)


async def paid(tenant: BilledTenant) -> str:
    """Pays a bill; the payment's id."""
    await tenant.bill()
    await tenant.collect()
    tenant.razorpay.pay_link(tenant.links()[-1]["id"])
    await tenant.age()
    await tenant.collect()
    return (await tenant.payments())[-1].razorpay_id


async def failed_refund(tenant: BilledTenant, payment_id: str, paise: int = 5_000) -> Refund:
    """A refund that failed, and its finding."""
    row = Refund(
        tenant_id=tenant.tenant_id,
        id=uuid7(),
        payment_id=payment_id,
        amount_paise=paise,
        cause="credit:1",
        state="failed",
        created_ms=now_ms(),
        error="the bank refused",
    )
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        session.add(row)
    await found(tenant, "refund_failed", f"refund_failed:{row.id}", refund_id=str(row.id))
    return row


async def test_a_failed_refund_is_sent_again_once(tenant: BilledTenant) -> None:
    failed = await failed_refund(tenant, await paid(tenant))
    assert await open_kinds(tenant) == ["refund_failed"]
    first = await send_again(tenant.context, OPERATOR, failed.id, reason="new account")
    assert (await send_again(tenant.context, OPERATOR, failed.id, reason="new account")).id == first.id
    await tenant.collect(2)
    assert [(one.state, one.amount_paise) for one in await tenant.refunds()] == [
        ("failed", 5_000),
        ("processed", 5_000),
    ]
    assert tenant.net_collected() == PAISE - 5_000
    assert await open_kinds(tenant) == []
    with pytest.raises(Conflict):
        await send_again(tenant.context, OPERATOR, first.id, reason="again")


async def test_a_refund_that_the_payment_no_longer_has_is_not_sent_again(tenant: BilledTenant) -> None:
    payment = await paid(tenant)
    failed = await failed_refund(tenant, payment, PAISE)
    tenant.razorpay.refund_payment(payment, 100)
    await tenant.collect()
    async with tenant.context.database.session() as session:
        await session.execute(text("UPDATE payments SET refunded_paise = 100"))
    with pytest.raises(Conflict):
        await send_again(tenant.context, OPERATOR, failed.id, reason="again")


async def test_a_payment_with_our_notes_that_has_no_place_is_found_until_it_has(tenant: BilledTenant) -> None:
    notes = {"tenant_id": str(tenant.tenant_id), "charge": str(uuid7())}
    given: dict[str, Any] = {"status": "captured", "amount": 5, "currency": "INR", "created_at": 1}
    key = await paid(tenant)
    assert not await report_unplaced(tenant.context, RazorpayPayment(id="pay_x", notes={"order": "7"}, **given))
    assert await report_unplaced(tenant.context, RazorpayPayment(id="pay_x", notes=notes, **given))
    assert await report_unplaced(tenant.context, RazorpayPayment(id=key, notes=notes, **given))
    assert await open_kinds(tenant) == ["payment_unplaced"]


async def test_findings_about_a_charge_close_with_it(tenant: BilledTenant) -> None:
    bill_id = await tenant.bill()
    await tenant.collect()
    charge = await tenant.charge(bill_id)
    for kind in ("charge_failed", "charge_lost"):
        await _set_state(tenant, charge, kind.split("_")[1].replace("lost", "submitting"))
        await found(tenant, kind, charge_id=str(charge.id))
        assert await open_kinds(tenant) == [kind]
        await _set_state(tenant, charge, "submitted")
        assert await open_kinds(tenant) == []


async def test_what_comes_back_opens_again_but_not_what_a_person_closed(tenant: BilledTenant) -> None:
    await found(tenant, "ledger_differs", "a")
    await found(tenant, "ledger_differs", "b")
    async with tenant.context.database.session() as session:
        await resolve_others(session, "ledger_differs", {"b"}, now_ms())
        await close_finding(session, OPERATOR, "b", "seen")
    assert await open_kinds(tenant) == []
    for key in ("a", "b"):
        await found(tenant, "ledger_differs", key)
    async with tenant.context.database.session() as session:
        query = select(BillingFinding.key).where(BillingFinding.closed_ms.is_(None))
        assert list(await session.scalars(query)) == ["a"]


async def test_a_condition_holds_for_no_finding_about_nothing(tenant: BilledTenant) -> None:
    """Every condition is valid SQL, and unknown rows resolve nothing."""
    for kind in _gone():
        await found(tenant, kind)
    assert set(await open_kinds(tenant)) == set(_gone())


async def test_a_detail_that_is_no_id_resolves_nothing_and_stops_nothing(tenant: BilledTenant) -> None:
    keys = ("bill", "charge_id", "mandate_id", "refund_id")
    for kind in _gone():
        await found(tenant, kind, f"{kind}:no-id", **dict.fromkeys(keys, "no-id"))
    assert set(await open_kinds(tenant)) == set(_gone())


async def _set_state(tenant: BilledTenant, charge: Charge, state: str) -> None:
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        (await session.get_one(Charge, (tenant.tenant_id, charge.id))).state = state
