"""Every trouble Razorpay can make at each of our writes, and a process that dies between any two steps: one effect.

After the trouble the duty runs a few times more, with what the rows remember made older, as time would: then a bill
has one thing that can be paid, or none if it needs none, and what was too much went back once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from billing.context import BillingContext
from billing.payments.refunds import want
from billing.razorpay.client import Razorpay as Gateway
from billing.razorpay.errors import RazorpayError
from tests.billing.office import Office
from tests.billing.till import PAISE, Till, at, hasty
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
async def till(context: BillingContext, office: Office, razorpay: Razorpay) -> AsyncIterator[Till]:
    """A tenant's, at a desk that is not patient with Razorpay."""
    quick = hasty(context, razorpay)
    yield Till(quick, razorpay, await office.tenant())
    quick.razorpay.close()


async def recover(till: Till, times: int = 4) -> None:
    """Time passes, and the duty runs."""
    await till.collect(2)
    for _ in range(times):
        await till.age()
        await till.collect()


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_link_whatever_happens_to_its_making(till: Till, trouble: dict[str, Any]) -> None:
    bill_id = await till.bill()
    till.razorpay.fault(route=LINK, **trouble)
    await recover(till)
    [charge], [link] = await till.charges(bill_id), till.links()
    assert (charge.state, charge.razorpay_id, link["status"]) == ("submitted", link["id"], "created")


async def test_a_lost_answer_and_a_list_that_lags(till: Till) -> None:
    """The duplicate is refused, and the list does not show it yet: it is waited for."""
    bill_id = await till.bill()
    till.razorpay.fault(route=LINK, kind="html", when="after")
    till.razorpay.fault(route="GET /v1/payment_links", kind="lag", delay_s=600, times=None)
    await till.collect(3)
    await till.age(1_800_000)
    await till.collect(2)
    assert [one.state for one in await till.charges(bill_id)] == ["submitting"]
    till.razorpay.advance(seconds=601)
    await till.collect()
    [charge], [link] = await till.charges(bill_id), till.links()
    assert (charge.state, charge.razorpay_id) == ("submitted", link["id"])


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_live_link_whatever_happens_to_a_cancel(till: Till, trouble: dict[str, Any]) -> None:
    bill_id = await till.bill()
    await till.collect()
    await till.change(bill_id, credited_paise=18_000)
    till.razorpay.fault(route=CANCEL, **trouble)
    await recover(till)
    assert sorted((link["status"], link["amount"]) for link in till.links()) == [
        ("cancelled", PAISE),
        ("created", 100_000),
    ]
    assert [one.state for one in await till.charges(bill_id)] == ["void", "submitted"]


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_refund_whatever_happens_to_it(till: Till, trouble: dict[str, Any]) -> None:
    await till.bill()
    await till.collect()
    till.razorpay.pay_link(till.links()[0]["id"])
    await till.age()
    await till.collect()
    [payment] = await till.payments()
    till.razorpay.fault(route=REFUND, **trouble)
    async with till.context.tenant_transaction(till.tenant_id) as session:
        await want(session, till.context, till.tenant_id, payment.razorpay_id, 18_000, "credit:1")
    await recover(till, times=2)
    assert [one.state for one in await till.refunds()] == ["processed"]
    assert till.kept() == 100_000


async def test_a_lost_refund_that_the_list_hides_is_sent_once(till: Till) -> None:
    """The look finds nothing: then the key is what makes the second call harmless."""
    await till.bill()
    await till.collect()
    till.razorpay.pay_link(till.links()[0]["id"])
    await till.age()
    await till.collect()
    [payment] = await till.payments()
    till.razorpay.fault(route=REFUND, kind="cut", when="after")
    till.razorpay.fault(route="GET /v1/payments/*/refunds", kind="lag", delay_s=600, times=None)
    async with till.context.tenant_transaction(till.tenant_id) as session:
        await want(session, till.context, till.tenant_id, payment.razorpay_id, 18_000, "credit:1")
    await till.collect(2)
    assert till.kept() == 100_000
    till.razorpay.clear_faults()
    await recover(till, times=1)
    assert [one.state for one in await till.refunds()] == ["processed"]
    assert till.kept() == 100_000


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_add_on_whatever_happens_to_its_making(till: Till, trouble: dict[str, Any]) -> None:
    till.context = at(till.context, addons=True)
    await till.subscribe()
    bill_id = await till.bill()
    till.razorpay.fault(route=ADDON, **trouble)
    await recover(till)
    [charge], [addon] = await till.charges(bill_id), till.addons()
    assert (charge.state, charge.razorpay_id, till.links()) == ("submitted", addon["id"], [])


async def test_an_add_on_that_the_list_hides_is_waited_for(till: Till) -> None:
    till.context = at(till.context, addons=True)
    await till.subscribe()
    bill_id = await till.bill()
    till.razorpay.fault(route=ADDON, kind="cut", when="after")
    till.razorpay.fault(route="GET /v1/addons", kind="lag", delay_s=600, times=None)
    await till.collect(3)
    await till.age(14 * 60_000)
    await till.collect()
    assert len(till.addons()) == 1
    till.razorpay.advance(seconds=601)
    await till.collect()
    assert (await till.charge(bill_id)).state == "submitted"
    assert len(till.addons()) == 1


async def test_an_add_on_that_shows_up_after_all_patience_is_deleted(till: Till) -> None:
    till.context = at(till.context, addons=True)
    await till.subscribe()
    bill_id = await till.bill()
    till.razorpay.fault(route=ADDON, kind="cut", when="after")
    till.razorpay.fault(route="GET /v1/addons", kind="lag", delay_s=600, times=None)
    await till.collect()
    await till.age(16 * 60_000)
    await till.collect()
    assert len(till.addons()) == 2
    till.razorpay.advance(seconds=601)
    await till.age()
    await till.collect()
    [addon] = till.addons()
    assert (await till.charge(bill_id)).razorpay_id == addon["id"]


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_a_link_takes_over_whatever_happens_to_a_deletion(till: Till, trouble: dict[str, Any]) -> None:
    till.context = at(till.context, addons=True)
    await till.subscribe()
    bill_id = await till.bill()
    await till.collect()
    await till.change(bill_id, credited_paise=18_000)
    till.razorpay.fault(route=DELETE, **trouble)
    await recover(till)
    assert till.addons() == []
    assert [(link["status"], link["amount"]) for link in till.links()] == [("created", 100_000)]


class Killed(BaseException):
    """The process is gone: nothing catches this on the way."""


class Dying:
    """A gateway whose process is killed at one call, before it goes out or after it had its effect."""

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
async def test_a_process_that_dies_at_any_call(till: Till, call: str, when: str) -> None:
    """A link is paid while a credit note makes the bill smaller; whoever dies on the way, another goes on."""
    gateway: Any = Dying(till.context.razorpay, call, when)
    doomed = Till(replace(till.context, razorpay=gateway), till.razorpay, till.tenant_id)
    bill_id = await till.bill()
    died = 0
    for step in range(3):
        try:
            await doomed.collect()
        except Killed:
            died += 1
        await till.collect()
        if step == 0:
            till.razorpay.pay_link(till.links()[0]["id"])
            await till.change(bill_id, credited_paise=10_000)
    assert died >= 1
    await recover(till, times=2)
    bill, [payment] = await till.read(bill_id), await till.payments()
    assert (bill.state, bill.paid_paise) == ("paid", PAISE - 10_000)
    assert (payment.applied_paise, payment.excess_paise) == (PAISE - 10_000, 10_000)
    assert [one.state for one in await till.refunds()] == ["processed"]
    assert len(till.links()) == 1
    assert till.kept() == PAISE - 10_000


async def test_workers_that_die_and_race_collect_each_bill_once(till: Till) -> None:
    """Two duties at once, one of them dying at every making of a link."""
    gateway: Any = Dying(till.context.razorpay, "create_payment_link", "after")
    doomed = Till(replace(till.context, razorpay=gateway), till.razorpay, till.tenant_id)
    bills = [await till.bill() for _ in range(4)]
    for _ in range(3):
        await asyncio.gather(doomed.collect(), till.collect(), return_exceptions=True)
    for link in till.links():
        till.razorpay.pay_link(link["id"])
    await recover(till, times=2)
    assert len(till.links()) == len(bills)
    assert {(await till.read(one)).state for one in bills} == {"paid"}
    assert till.kept() == PAISE * len(bills)
