"""Every Razorpay fault at each of our writes, and a crash between any two steps: one effect.

After the fault the duty runs a few more times on aged rows. Then a bill has one payable link or add-on, or none if it
needs none, and the excess was refunded once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from billing.context import BillingContext
from billing.payments.refunds import request_refund
from billing.razorpay.client import Razorpay as Gateway
from billing.razorpay.errors import RazorpayError
from tests.billing.billed_tenant import PAISE, BilledTenant, impatient, with_rules
from tests.billing.operator import OperatorSetup
from tests.simulated_razorpay import Razorpay

LINK, CANCEL = "POST /v1/payment_links", "POST /v1/payment_links/*/cancel"
ADDON, DELETE = "POST /v1/subscriptions/*/addons", "DELETE /v1/addons/*"
REFUND = "POST /v1/payments/*/refund"
TROUBLES: dict[str, dict[str, Any]] = {
    "json 500 before": {"kind": "error", "when": "before"},
    "json 500 after": {"kind": "error", "when": "after"},
    "html before": {"kind": "html", "when": "before"},
    "html after": {"kind": "html", "when": "after"},
    "throttled": {"kind": "throttle"},
    "cut before": {"kind": "cut", "when": "before"},
    "cut after": {"kind": "cut", "when": "after"},
    "slow": {"kind": "slow", "when": "after", "delay_s": 1.5},
    "slow, and late": {"kind": "slow", "when": "before", "delay_s": 1.5},
}
TWICE: dict[str, dict[str, Any]] = {
    f"{name}{note}": {**trouble, "times": times}
    for name, trouble in TROUBLES.items()
    for times, note in ((1, ""), (2, ", twice"))
    if times == 1 or name in {"json 500 after", "cut after"}
}


@pytest.fixture
async def tenant(context: BillingContext, setup: OperatorSetup, razorpay: Razorpay) -> AsyncIterator[BilledTenant]:
    """A tenant with short time-outs."""
    quick = impatient(context, razorpay)
    yield BilledTenant(quick, razorpay, await setup.tenant())
    quick.razorpay.close()


async def recover(tenant: BilledTenant, times: int = 4, *, trouble: dict[str, Any] | None = None) -> None:
    """Ages the rows and runs the duty. What a slow call does late happens before: Razorpay takes seconds, not hours."""
    await tenant.collect(2)
    await asyncio.sleep((trouble or {}).get("delay_s", 0))
    for _ in range(times):
        await tenant.age()
        await tenant.collect()


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_link_whatever_happens_to_its_making(tenant: BilledTenant, trouble: dict[str, Any]) -> None:
    bill_id = await tenant.bill()
    tenant.razorpay.fault(route=LINK, **trouble)
    await recover(tenant, trouble=trouble)
    [charge], [link] = await tenant.charges(bill_id), tenant.links()
    assert (charge.state, charge.razorpay_id, link["status"]) == ("submitted", link["id"], "created")


async def test_a_lost_answer_and_a_list_that_lags(tenant: BilledTenant) -> None:
    """The duplicate is refused while the list lags: the charge waits."""
    bill_id = await tenant.bill()
    tenant.razorpay.fault(route=LINK, kind="html", when="after")
    tenant.razorpay.fault(route="GET /v1/payment_links", kind="lag", delay_s=600, times=None)
    await tenant.collect(3)
    await tenant.age(1_800_000)
    await tenant.collect(2)
    assert [one.state for one in await tenant.charges(bill_id)] == ["submitting"]
    tenant.razorpay.advance(seconds=601)
    await tenant.collect()
    [charge], [link] = await tenant.charges(bill_id), tenant.links()
    assert (charge.state, charge.razorpay_id) == ("submitted", link["id"])


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_live_link_whatever_happens_to_a_cancel(tenant: BilledTenant, trouble: dict[str, Any]) -> None:
    bill_id = await tenant.bill()
    await tenant.collect()
    await tenant.credit(bill_id, 18_000)
    tenant.razorpay.fault(route=CANCEL, **trouble)
    await recover(tenant, trouble=trouble)
    assert sorted((link["status"], link["amount"]) for link in tenant.links()) == [
        ("cancelled", PAISE),
        ("created", 100_000),
    ]
    assert [one.state for one in await tenant.charges(bill_id)] == ["void", "submitted"]


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_refund_whatever_happens_to_it(tenant: BilledTenant, trouble: dict[str, Any]) -> None:
    await tenant.bill()
    await tenant.collect()
    tenant.razorpay.pay_link(tenant.links()[0]["id"])
    await tenant.age()
    await tenant.collect()
    [payment] = await tenant.payments()
    tenant.razorpay.fault(route=REFUND, **trouble)
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        await request_refund(session, tenant.context, tenant.tenant_id, payment.razorpay_id, 18_000, "credit:1")
    await recover(tenant, times=2, trouble=trouble)
    assert [one.state for one in await tenant.refunds()] == ["processed"]
    assert tenant.net_collected() == 100_000


async def test_a_lost_refund_that_the_list_hides_is_sent_once(tenant: BilledTenant) -> None:
    """The search finds nothing; the key makes the second call harmless."""
    await tenant.bill()
    await tenant.collect()
    tenant.razorpay.pay_link(tenant.links()[0]["id"])
    await tenant.age()
    await tenant.collect()
    [payment] = await tenant.payments()
    tenant.razorpay.fault(route=REFUND, kind="cut", when="after")
    tenant.razorpay.fault(route="GET /v1/payments/*/refunds", kind="lag", delay_s=600, times=None)
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        await request_refund(session, tenant.context, tenant.tenant_id, payment.razorpay_id, 18_000, "credit:1")
    await tenant.collect(2)
    assert tenant.net_collected() == 100_000
    tenant.razorpay.clear_faults()
    await recover(tenant, times=1)
    assert [one.state for one in await tenant.refunds()] == ["processed"]
    assert tenant.net_collected() == 100_000


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_add_on_whatever_happens_to_its_making(tenant: BilledTenant, trouble: dict[str, Any]) -> None:
    tenant.context = with_rules(tenant.context, addons=True)
    await tenant.subscribe()
    bill_id = await tenant.bill()
    tenant.razorpay.fault(route=ADDON, **trouble)
    await recover(tenant, trouble=trouble)
    [charge], [addon] = await tenant.charges(bill_id), tenant.addons()
    assert (charge.state, charge.razorpay_id, tenant.links()) == ("submitted", addon["id"], [])


async def test_an_add_on_that_the_list_hides_is_waited_for(tenant: BilledTenant) -> None:
    tenant.context = with_rules(tenant.context, addons=True)
    await tenant.subscribe()
    bill_id = await tenant.bill()
    tenant.razorpay.fault(route=ADDON, kind="cut", when="after")
    tenant.razorpay.fault(route="GET /v1/addons", kind="lag", delay_s=600, times=None)
    await tenant.collect(3)
    await tenant.age(14 * 60_000)
    await tenant.collect()
    assert len(tenant.addons()) == 1
    tenant.razorpay.advance(seconds=601)
    await tenant.collect()
    assert (await tenant.charge(bill_id)).state == "submitted"
    assert len(tenant.addons()) == 1


async def test_an_add_on_that_shows_up_after_all_patience_is_deleted(tenant: BilledTenant) -> None:
    tenant.context = with_rules(tenant.context, addons=True)
    await tenant.subscribe()
    bill_id = await tenant.bill()
    tenant.razorpay.fault(route=ADDON, kind="cut", when="after")
    tenant.razorpay.fault(route="GET /v1/addons", kind="lag", delay_s=600, times=None)
    await tenant.collect()
    await tenant.age(16 * 60_000)
    await tenant.collect()
    assert len(tenant.addons()) == 2
    tenant.razorpay.advance(seconds=601)
    await tenant.age()
    await tenant.collect()
    [addon] = tenant.addons()
    assert (await tenant.charge(bill_id)).razorpay_id == addon["id"]


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_a_link_takes_over_whatever_happens_to_a_deletion(tenant: BilledTenant, trouble: dict[str, Any]) -> None:
    tenant.context = with_rules(tenant.context, addons=True)
    await tenant.subscribe()
    bill_id = await tenant.bill()
    await tenant.collect()
    await tenant.credit(bill_id, 18_000)
    tenant.razorpay.fault(route=DELETE, **trouble)
    await recover(tenant, trouble=trouble)
    assert tenant.addons() == []
    assert [(link["status"], link["amount"]) for link in tenant.links()] == [("created", 100_000)]


class Killed(BaseException):
    """The process dies: no handler catches this."""


class Dying:
    """A client that kills its process at one call, before or after its effect."""

    def __init__(self, gateway: Gateway, call: str, when: str) -> None:
        self._gateway, self._call, self._when = gateway, call, when

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        real: Callable[..., Awaitable[Any]] = getattr(self._gateway, name)
        if name != self._call:
            return real

        async def dies(*args: Any, **named: Any) -> Any:
            if self._when == "after":
                with suppress(RazorpayError):
                    await real(*args, **named)
            raise Killed(name)

        return dies


CALLS = ("create_payment_link", "fetch_payment_link", "cancel_payment_link", "fetch_payment", "refund", "refunds_of")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_process_that_dies_at_any_call(tenant: BilledTenant, call: str, when: str) -> None:
    """A link is paid while a credit note reduces the bill; after a crash another worker continues."""
    gateway: Any = Dying(tenant.context.razorpay, call, when)
    doomed = BilledTenant(replace(tenant.context, razorpay=gateway), tenant.razorpay, tenant.tenant_id)
    bill_id = await tenant.bill()
    died = 0
    for step in range(3):
        try:
            await doomed.collect()
        except Killed:
            died += 1
        await tenant.collect()
        if step == 0:
            tenant.razorpay.pay_link(tenant.links()[0]["id"])
            await tenant.credit(bill_id, 10_000)
    assert died >= 1
    await recover(tenant, times=2)
    bill, [payment] = await tenant.read(bill_id), await tenant.payments()
    assert (bill.state, bill.paid_paise) == ("paid", PAISE - 10_000)
    assert (payment.applied_paise, payment.excess_paise) == (PAISE - 10_000, 10_000)
    assert [one.state for one in await tenant.refunds()] == ["processed"]
    assert len(tenant.links()) == 1
    assert tenant.net_collected() == PAISE - 10_000


@pytest.mark.slow
async def test_workers_that_die_and_race_collect_each_bill_once(tenant: BilledTenant) -> None:
    """Two concurrent duties, one of which dies whenever it creates a link."""
    gateway: Any = Dying(tenant.context.razorpay, "create_payment_link", "after")
    doomed = BilledTenant(replace(tenant.context, razorpay=gateway), tenant.razorpay, tenant.tenant_id)
    bills = [await tenant.bill() for _ in range(4)]
    for _ in range(3):
        await asyncio.gather(doomed.collect(), tenant.collect(), return_exceptions=True)
    for link in tenant.links():
        tenant.razorpay.pay_link(link["id"])
    await recover(tenant, times=2)
    assert len(tenant.links()) == len(bills)
    assert {(await tenant.read(one)).state for one in bills} == {"paid"}
    assert tenant.net_collected() == PAISE * len(bills)
