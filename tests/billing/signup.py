"""A tenant that subscribes, changes and pays, with this process on the simulator's clock."""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select

from billing.access.cycles import IST
from billing.collection.collection import collect
from billing.context import BillingContext
from billing.models import Bill, BillingFinding, BillingPeriod, Payment, Plan, Refund, Subscription
from billing.razorpay.errors import RazorpayError
from billing.subscriptions.intents import subscribe
from billing.subscriptions.push import LIST_LAG_MS, push_subscription, push_subscriptions
from billing.subscriptions.sync import refresh_subscription
from core.clock import follow_test_clock
from core.tenancy.audit import Actor
from core.tenancy.models import Tenant
from metering.models import EntitlementRow
from metering.quota.schedule import Schedule
from tests.billing.operator import METERS, OperatorSetup
from tests.simulated_razorpay import Razorpay

ACTOR = Actor("test")
OPENS = int(datetime(2027, 1, 5, 10, 0, tzinfo=IST).timestamp())
DAY_S = 86_400
_PLANS: dict[str, dict[str, Any]] = {
    "plus": {"base_paise": 500_000, "past_allowance": "bill", "ceiling_paise": 10_000_000},
    "small": {"base_paise": 0, "past_allowance": "bill", "ceiling_paise": 400_000},
    "solid": {"base_paise": 300_000, "past_allowance": "block"},
    "trial": {"base_paise": 300_000, "past_allowance": "block", "trial_days": 14},
    "free": {"base_paise": 0, "past_allowance": "block"},
}


class OnRazorpaysClock:
    """A tenant whose process follows the simulator's clock."""

    razorpay: Razorpay

    async def advance(self, *, days: float = 0, seconds: float = 0, to_ms: int | None = None) -> None:
        """Moves the clock of both sides."""
        to = None if to_ms is None else to_ms / 1000
        await asyncio.to_thread(lambda: self.razorpay.advance(days=days, seconds=seconds, to=to))
        follow(self.razorpay)


class Signup(OnRazorpaysClock):
    """One tenant."""

    def __init__(self, context: BillingContext, razorpay: Razorpay, tenant_id: UUID) -> None:
        self.context, self.razorpay, self.tenant_id = context, razorpay, tenant_id

    @classmethod
    async def open(cls, context: BillingContext, razorpay: Razorpay) -> "Signup":
        """Creates a tenant on a morning of January 2027, and plans; `team` costs Rs 3,000."""
        razorpay.reset(start=OPENS)
        follow(razorpay)
        setup = await OperatorSetup.open(context)
        async with context.database.session() as session:
            for code, fields in _PLANS.items():
                session.add(Plan(code=code, version=1, name=code.title(), limits={}, meters=METERS, **fields))
        return cls(context, razorpay, await setup.tenant())

    async def neighbour(self) -> "Signup":
        """Creates another tenant."""
        return Signup(self.context, self.razorpay, await OperatorSetup(self.context).tenant())

    # ------------------------------------------------------------------------------------------ what it does

    async def request(self, plan: str = "team") -> Subscription:
        """Subscribes as the route does: the intent is stored even if the call fails."""
        wanted = await subscribe(self.context, ACTOR, self.tenant_id, plan)
        assert wanted.subscription_id is not None
        with suppress(RazorpayError):
            await push_subscription(self.context, self.tenant_id, wanted.subscription_id)
        return await self.read(wanted.subscription_id)

    async def subscribed(self, plan: str = "team", method: str = "upi") -> Subscription:
        """Subscribes, authorises at Razorpay, and fetches."""
        row = await self.request(plan)
        assert row.razorpay_id is not None, row.error
        self.razorpay.authorise(row.razorpay_id, method)
        await self.fetch(row)
        return await self.read(row.id)

    async def fetch(self, row: Subscription) -> None:
        """Refreshes, as a webhook does."""
        await refresh_subscription(self.context, row.tenant_id, row.id)

    async def settle(self, *, rounds: int = 3) -> None:
        """Runs the duties a few times, with enough time in between for lost answers."""
        await push_subscriptions(self.context)
        for _ in range(rounds):
            await self.advance(seconds=LIST_LAG_MS / 1000 + 60)
            await push_subscriptions(self.context)
            await collect(self.context)

    # ---------------------------------------------------------------------------------------- what came of it

    async def read(self, subscription_id: UUID) -> Subscription:
        """The current row."""
        async with self.context.database.session() as session:
            return await session.get_one(Subscription, (self.tenant_id, subscription_id))

    async def all(self, model: Any, *order: Any) -> list[Any]:
        """The tenant's rows of a table."""
        async with self.context.database.session() as session:
            return list(await session.scalars(select(model).where(model.tenant_id == self.tenant_id).order_by(*order)))

    async def subscriptions(self) -> list[Subscription]:
        """All rows, oldest first."""
        return await self.all(Subscription, Subscription.id)

    async def periods(self) -> list[BillingPeriod]:
        """All rows, oldest first."""
        return await self.all(BillingPeriod, BillingPeriod.starts_ms)

    async def payments(self) -> list[Payment]:
        """All rows, oldest first."""
        return await self.all(Payment, Payment.captured_ms)

    async def refunds(self) -> list[Refund]:
        """All rows, oldest first."""
        return await self.all(Refund, Refund.id)

    async def bills(self) -> list[Bill]:
        """All rows, oldest first."""
        return await self.all(Bill, Bill.created_ms, Bill.id)

    async def own_plan(self) -> tuple[str | None, int | None] | None:
        """The plan that the tenant has without a subscription."""
        async with self.context.database.session() as session:
            tenant = await session.get_one(Tenant, self.tenant_id)
            return None if tenant.plan_code is None else (tenant.plan_code, tenant.plan_version)

    async def schedule(self) -> Schedule:
        """The entitlement's schedule."""
        (row,) = await self.all(EntitlementRow)
        return msgspec.convert(row.schedule, Schedule)

    async def served_until(self) -> int | None:
        """Start of the schedule's last refusal; None without one."""
        segments = (await self.schedule()).segments
        return segments[-1].from_ms if segments and segments[-1].refusal is not None else None

    async def findings(self) -> list[str]:
        """The kinds of all findings."""
        async with self.context.database.session() as session:
            return list(await session.scalars(select(BillingFinding.kind).order_by(BillingFinding.key)))

    def at_razorpay(self, status: str | None = None) -> list[dict[str, Any]]:
        """The subscriptions at Razorpay, oldest first."""
        return [one for one in self.razorpay.ledger()["subscriptions"] if status in (None, one["status"])]


def follow(razorpay: Razorpay) -> None:
    """Puts this process on the simulator's clock."""
    assert razorpay.clock_file is not None
    follow_test_clock(razorpay.clock_file)
