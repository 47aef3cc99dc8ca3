"""Debits with webhooks in any order and number, and killed workers: the same bills paid, and none twice."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings

from billing.context import BillingContext
from billing.mandates.mandates import register_mandate
from billing.mandates.push import LIST_LAG_MS, push_mandates
from billing.webhooks.inbox import Inbox
from tests import simulated_razorpay as sandbox
from tests.billing.signup import ACTOR, DAY_S
from tests.journeys.shuffled import HOUR_S, Order, Story
from tests.journeys.test_any_order import QUIET, _is_sound, context, inbox, orders

__all__ = ["context", "inbox"]
CONTACT = "+919812345670"


@dataclass
class DebitStory(Story):
    """Two customers with mandates over two cycles. One opts out of a debit, and pays the link."""

    async def tell(self) -> "DebitStory":
        """Runs the journey to the last debit."""
        await self._subscribe()
        for one in self.customers:
            await register_mandate(self.context, ACTOR, one.tenant_id, method="upi", contact=CONTACT)
        await self._happens()
        for registration_id in await self._registered():
            self.razorpay.register(registration_id)
        await self._happens()
        for tokens in (500, 700):
            await self._use(tokens)
            ends = max([await self._end(one) for one in self.customers])
            await self._to(ends + HOUR_S)
            await self._happens()
            await self._to(ends + 3 * HOUR_S)
            await self._happens()
            if tokens == 500:
                await self._opt_out()
            await self._to(ends + 3 * DAY_S)
            await self._happens()
            await self._pay_links()
            await self._happens()
        for _ in range(3):  # a debit that was made late still has its day
            await self._to(self.razorpay.now() + 2 * DAY_S)
            await self._happens()
        await self._heal()
        return self

    async def _registered(self) -> list[str]:
        """The registrations at Razorpay, once there is one for each customer."""
        for _ in range(4):
            rows = await self.rows("SELECT razorpay_id FROM mandates ORDER BY tenant_id")
            if all(row["razorpay_id"] for row in rows):
                return [row["razorpay_id"] for row in rows]
            await self._to(self.razorpay.now() + LIST_LAG_MS / 1000 + 60)
            await push_mandates(self.context)
        raise AssertionError("a mandate was not registered")

    async def _opt_out(self) -> None:
        """Declines every debit that is announced by now."""
        for debit in self.razorpay.debits():
            if debit["status"] == "created":
                await asyncio.to_thread(self.razorpay.opt_out, debit["payment_id"])


async def _end_state(story: DebitStory) -> dict[str, Any]:
    """The state that all runs share: how a bill was collected depends on the order, what was paid does not."""
    bills = await story.rows(
        "SELECT tenant_id, kind, seq, starts_ms, state, total_paise, paid_paise FROM bills ORDER BY 1, 2, 4, 3"
    )
    tenants = [one.tenant_id for one in story.customers]
    mandates = await story.rows("SELECT state, wanted_end FROM mandates")
    refunds = await story.rows("SELECT amount_paise, state FROM refunds")
    return {
        "bills": sorted((tenants.index(row["tenant_id"]), *list(row.values())[1:]) for row in bills),
        "mandates": [tuple(row.values()) for row in mandates],
        "refunds": [tuple(row.values()) for row in refunds],
        "kept": story.razorpay.money()["totals"]["kept"],
    }


@pytest.mark.slow
@settings(
    max_examples=1,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(order=orders)
@example(order=QUIET)
@example(order=Order(seed=3, drop=1.0))
@example(order=Order(seed=4, drop=0.0, late=0.6))
async def test_debits_in_any_order_pay_every_bill_once(
    context: BillingContext,
    inbox: Inbox,
    razorpay: sandbox.Razorpay,
    order: Order,
) -> None:
    story = await DebitStory(context, inbox, razorpay, order).tell()

    note(f"{dict(story.fates)}, {[worker.deaths for worker in story.workers]} deaths")
    end = await _end_state(story)
    assert end["mandates"] == [("active", None)] * 2
    assert end["refunds"] == [(100, "processed")] * 2
    overage = sorted(paid_paise for _, kind, *_, paid_paise in end["bills"] if kind == "overage")
    assert overage == [59_000, 59_118, 82_600, 82_718]
    assert {bill[4] for bill in end["bills"]} == {"paid"}
    assert end["kept"] == 6 * 354_000 + sum(overage)
    await _is_sound(story)
