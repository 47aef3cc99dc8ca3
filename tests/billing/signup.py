"""A tenant that subscribes, changes its mind and pays, at a Razorpay whose clock this process lives by."""

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
from billing.subscriptions.push import PATIENCE_MS, drive, drive_one
from billing.subscriptions.sync import refresh
from core.clock import follow_test_clock
from core.tenancy.audit import Actor
from metering.models import EntitlementRow
from metering.quota.schedule import Schedule
from tests.billing.office import Office
from tests.simulated_razorpay import Razorpay

ACTOR = Actor("test")
OPENS = int(datetime(2027, 1, 5, 10, 0, tzinfo=IST).timestamp())
DAY_S = 86_400
_METERS = [{"meter": "output_tokens", "allowance": 1_000, "rate_paise": 100_000_000}]
_PLANS: dict[str, dict[str, Any]] = {
    "plus": {"base_paise": 500_000, "past_allowance": "bill", "ceiling_paise": 10_000_000},
    "solid": {"base_paise": 300_000, "past_allowance": "block"},
    "trial": {"base_paise": 300_000, "past_allowance": "block", "trial_days": 14},
    "free": {"base_paise": 0, "past_allowance": "block"},
}


class Signup:
    """One tenant, at a desk."""

    def __init__(self, context: BillingContext, razorpay: Razorpay, tenant_id: UUID) -> None:
        self.context, self.razorpay, self.tenant_id = context, razorpay, tenant_id

    @classmethod
    async def open(cls, context: BillingContext, razorpay: Razorpay) -> "Signup":
        """A new tenant on a morning of January 2027, and plans for it to choose from; `team` bills Rs 3,000."""
        razorpay.reset(start=OPENS)
        follow(razorpay)
        office = await Office.open(context)
        async with context.database.session() as session:
            for code, fields in _PLANS.items():
                session.add(Plan(code=code, version=1, name=code.title(), limits={}, meters=_METERS, **fields))
        return cls(context, razorpay, await office.tenant())

    async def neighbour(self) -> "Signup":
        """Another tenant."""
        return Signup(self.context, self.razorpay, await Office(self.context).tenant())

    # ------------------------------------------------------------------------------------------ what it does

    async def want(self, plan: str = "team") -> Subscription:
        """Asks for it, as the route does: whatever becomes of the call, the wish is stored."""
        wanted = await subscribe(self.context, ACTOR, self.tenant_id, plan)
        assert wanted.subscription_id is not None
        with suppress(RazorpayError):
            await drive_one(self.context, self.tenant_id, wanted.subscription_id)
        return await self.read(wanted.subscription_id)

    async def subscribed(self, plan: str = "team", method: str = "upi") -> Subscription:
        """Asks, authorises, and is known to have."""
        row = await self.want(plan)
        assert row.razorpay_id is not None, row.error
        self.razorpay.authorise(row.razorpay_id, method)
        await self.fetch(row)
        return await self.read(row.id)

    async def fetch(self, row: Subscription) -> None:
        """What a webhook leads to."""
        await refresh(self.context, row.tenant_id, row.id)

    async def advance(self, *, days: float = 0, seconds: float = 0, to_ms: int | None = None) -> None:
        """Time passes for both sides."""
        to = None if to_ms is None else to_ms / 1000
        await asyncio.to_thread(lambda: self.razorpay.advance(days=days, seconds=seconds, to=to))
        follow(self.razorpay)

    async def settle(self, *, rounds: int = 3) -> None:
        """The duty runs, and time enough passes for what is in doubt, a few times."""
        await drive(self.context)
        for _ in range(rounds):
            await self.advance(seconds=PATIENCE_MS / 1000 + 60)
            await drive(self.context)
            await collect(self.context)

    # ---------------------------------------------------------------------------------------- what came of it

    async def read(self, subscription_id: UUID) -> Subscription:
        """The row as it is."""
        async with self.context.database.session() as session:
            return await session.get_one(Subscription, (self.tenant_id, subscription_id))

    async def all(self, model: Any, *order: Any) -> list[Any]:
        """The tenant's rows of a table."""
        async with self.context.database.session() as session:
            return list(await session.scalars(select(model).where(model.tenant_id == self.tenant_id).order_by(*order)))

    async def subscriptions(self) -> list[Subscription]:
        """All, oldest first."""
        return await self.all(Subscription, Subscription.id)

    async def periods(self) -> list[BillingPeriod]:
        """All, oldest first."""
        return await self.all(BillingPeriod, BillingPeriod.starts_ms)

    async def payments(self) -> list[Payment]:
        """All, oldest first."""
        return await self.all(Payment, Payment.captured_ms)

    async def refunds(self) -> list[Refund]:
        """All, oldest first."""
        return await self.all(Refund, Refund.id)

    async def bills(self) -> list[Bill]:
        """All, oldest first."""
        return await self.all(Bill, Bill.created_ms, Bill.id)

    async def schedule(self) -> Schedule:
        """What admission reads."""
        (row,) = await self.all(EntitlementRow)
        return msgspec.convert(row.schedule, Schedule)

    async def served_until(self) -> int | None:
        """Where the schedule's last refusal begins; None: nothing is refused."""
        segments = (await self.schedule()).segments
        return segments[-1].from_ms if segments and segments[-1].refusal is not None else None

    async def findings(self) -> list[str]:
        """The kinds of what a person should know."""
        async with self.context.database.session() as session:
            return list(await session.scalars(select(BillingFinding.kind).order_by(BillingFinding.key)))

    def theirs(self, status: str | None = None) -> list[dict[str, Any]]:
        """The subscriptions at Razorpay, oldest first."""
        return [one for one in self.razorpay.ledger()["subscriptions"] if status in (None, one["status"])]


def follow(razorpay: Razorpay) -> None:
    """This process lives in the simulator's time, as of now."""
    assert razorpay.clock_file is not None
    follow_test_clock(razorpay.clock_file)
