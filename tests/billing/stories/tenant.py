"""A tenant that changes its plans, through the product's own operations, and uses them as admission allows."""

from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from billing.access.cycles import IST
from billing.access.periods import record_cycle
from billing.access.projection import project
from billing.catalogue.plans import put_on_plan
from billing.context import BillingContext
from billing.models import Bill, Plan, Subscription
from billing.subscriptions.intents import cancel_subscription, end_replaced, subscribe
from core.clock import DAY_MS, to_datetime, to_ms
from core.tenancy.audit import Actor
from metering.models import EntitlementRow
from metering.quota.limits import PlanLimits
from metering.quota.schedule import Schedule, period_at, segments_of, window_of
from metering.quota.windows import Calendar
from tests.billing.operator import OperatorSetup
from tests.billing.stories.grants import UNPRICED, Deal, Grants, month_later

ACTOR = Actor("story")
BASE = {"free": 0, "meter": 0, "low": 0, "solid": 300_000, "duo": 300_000, "lean": 300_000, "plus": 500_000}
DEALS = {
    "free@1": Deal("free@1", 100),
    "meter@1": Deal("meter@1", 50, 2, bills=True, most_paise=90_000),
    "low@1": Deal("low@1", 10, 5, bills=True, most_paise=20_000),
    "solid@1": Deal("solid@1", 150),
    "duo@1": Deal("duo@1", 120, 3, bills=True, most_paise=60_000),
    "duo@2": Deal("duo@2", 200, 1, bills=True, most_paise=60_000),
    "lean@1": Deal("lean@1", 40, 7, bills=True, most_paise=200_000),
    "plus@1": Deal("plus@1", 500, 4, bills=True, most_paise=100_000),
}
OWN, SAME_PRICE = ("free@1", "meter@1", "low@1"), ("solid@1", "duo@1", "duo@2", "lean@1")
START_MS = to_ms(datetime(2026, 4, 3, 9, tzinfo=IST))
LAST_MS = START_MS + 230 * DAY_MS
"""No story goes on past it, so that it ends in the year that it began in: numbers of documents do not go back."""


@dataclass
class Sub:
    """A subscription as its customer sees it."""

    id: UUID
    suffix: str
    deal: Deal
    starts_ms: int
    ends_ms: int | None = None


class StoryTenant:
    """One tenant, and what a customer would expect of it."""

    def __init__(self, context: BillingContext, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
        self.context, self.tenant_id, self.now_ms = context, tenant_id, START_MS
        self.grants, self.own, self.subs = Grants(), None, []  # type: Grants, Deal | None, list[Sub]
        self.wish: tuple[UUID, Deal] | None = None
        self.coming: Sub | None = None
        self.running: list[tuple[str, str, int, int]] = []
        self.names: dict[str, tuple[str, Deal]] = {}
        for module in ("catalogue.plans", "subscriptions.intents", "invoicing.period_close"):
            monkeypatch.setattr(f"billing.{module}.now_ms", lambda: self.now_ms)

    @classmethod
    async def open(
        cls, context: BillingContext, setup: OperatorSetup, monkeypatch: pytest.MonkeyPatch
    ) -> "StoryTenant":
        """Makes the plans, once, and the tenant."""
        async with context.database.session() as session:
            for name, deal in DEALS.items():
                code, version = name.split("@")
                meter = {"meter": "output_tokens", "allowance": deal.included, "rate_paise": deal.rupees * 100_000_000}
                terms: dict[str, Any] = {"past_allowance": "bill" if deal.bills else "block", "meters": [meter]}
                terms["ceiling_paise"] = deal.most_paise if deal.bills else None
                values = {"code": code, "version": int(version), "name": code, "limits": {}, "base_paise": BASE[code]}
                await session.execute(insert(Plan).values(**values, **terms).on_conflict_do_nothing())
        return cls(context, await setup.tenant(), monkeypatch)

    # ------------------------------------------------------------------------------------- what a customer expects

    @property
    def live(self) -> Sub | None:
        """The subscription in force now."""
        return next((s for s in self.subs if s.starts_ms <= self.now_ms < (s.ends_ms or 1 << 60)), None)

    def expects(self) -> tuple[str, Deal | None]:
        """The window and the deal in force now; None: nothing is granted."""
        live = self.live
        if live is None:
            window = f"{to_datetime(self.now_ms).astimezone(IST):%Y-%m}"
            return window, self.own or (None if self.subs else UNPRICED)
        starts = self._cycle(live, self.now_ms)[0]
        deal = live.deal
        if self.coming is not None and self.coming.deal.bills and not deal.bills:
            coming = self.coming.deal
            deal = replace(coming, plan=deal.plan, included=deal.included)
        return f"{starts:%Y-%m-%d}-{live.suffix}", deal

    def _cycle(self, sub: Sub, at_ms: int) -> tuple[date, int]:
        """Day of the start of the cycle at a time, and its end."""
        day = to_datetime(sub.starts_ms).astimezone(IST).date()
        anchor = day.day
        while (ends_ms := _midnight(month_later(day, anchor))) <= at_ms:
            day = month_later(day, anchor)
        return day, ends_ms

    # ------------------------------------------------------------------------------------------------- operations

    async def later(self, days: float) -> None:
        """Lets time pass; Razorpay's cycles are learned on the way, some days after they begin."""
        until_ms = self.now_ms + int(days * DAY_MS)
        while (sub := self.live or self.coming) is not None:
            boundary_ms = self._cycle(sub, self.now_ms)[1] if sub is self.live else sub.starts_ms
            if boundary_ms > until_ms:
                break
            self.now_ms = boundary_ms
            if sub.ends_ms == boundary_ms:
                await self._change(sub.id, status="cancelled", ended_ms=boundary_ms)
            self.coming = None if self.live is self.coming else self.coming
            if self.live is None:
                break
            await self._learn(self.live)
        self.now_ms = max(self.now_ms, until_ms)

    async def move(self, plan: str) -> None:
        """The operator puts it on another plan."""
        code, version = plan.split("@")
        async with self.context.database.session() as session:
            await put_on_plan(
                session, ACTOR, self.tenant_id, await session.get_one(Plan, (code, int(version))), self.context.zone
            )
        self.own = DEALS[plan]

    async def start(self, plan: str) -> None:
        """Subscribes, authorises and pays at once."""
        if self.live is not None or self.coming is not None or self.wish is not None:
            return
        await self.ask(plan)
        assert self.wish is not None
        sub = await self._authorised(self.now_ms, status="active")
        self.subs.append(sub)
        await self._learn(sub)

    async def switch(self, plan: str) -> None:
        """Changes to a plan of the same price."""
        live = self.live
        if live is None or live.ends_ms is not None or self.wish is not None or BASE[live.deal.plan[:-2]] != 300_000:
            return
        if live.deal.plan != plan:
            code, version = plan.split("@")
            done = await subscribe(self.context, ACTOR, self.tenant_id, code, int(version))
            assert done.subscription_id is None
            live.deal = DEALS[plan]

    async def ask(self, plan: str) -> None:
        """Wishes for a subscription, or another one, that nobody has authorised yet."""
        live = self.live
        if self.wish is not None or (live is not None and (live.ends_ms is not None or live.deal == DEALS[plan])):
            return
        code, version = plan.split("@")
        wanted = await subscribe(self.context, ACTOR, self.tenant_id, code, int(version))
        if wanted.subscription_id is None:
            assert live is not None
            live.deal = DEALS[plan]
            return
        self.wish = wanted.subscription_id, DEALS[plan]
        await self._change(
            wanted.subscription_id,
            state="submitted",
            status="created",
            remaining_count=12,
            razorpay_id=f"sub_{wanted.subscription_id.hex}",
        )

    async def abandon(self) -> None:
        """Never authorises its wish."""
        if self.wish is not None:
            await self._change(self.wish[0], status="expired", is_open=False)
            self.wish = None

    async def authorise(self) -> None:
        """Authorises a change that begins where the paid cycle ends."""
        if self.wish is None:
            return
        live = self.live
        if live is None:
            await self.abandon()
            return
        ends_ms = self._cycle(live, self.now_ms)[1]
        self.coming = await self._authorised(ends_ms, status="authenticated")
        live.ends_ms = ends_ms
        self.subs.append(self.coming)

    async def take_back(self) -> None:
        """Cancels an authorised change before it begins."""
        if self.coming is not None:
            await cancel_subscription(self.context, ACTOR, self.tenant_id, at_period_end=False, reason="story")
            self.subs.remove(self.coming)
            self.coming = None

    async def stop(self) -> None:
        """Cancels at the end of the cycle."""
        if self.live is not None and self.live.ends_ms is None and self.wish is None:
            await cancel_subscription(self.context, ACTOR, self.tenant_id, at_period_end=True, reason="story")
            self.live.ends_ms = self._cycle(self.live, self.now_ms)[1]

    async def _authorised(self, starts_ms: int, *, status: str) -> Sub:
        assert self.wish is not None
        wish_id, deal = self.wish
        later = {"wanted_start_ms": starts_ms} if starts_ms > self.now_ms else {}
        fields = {"status": status, "authorised_ms": self.now_ms, "start_ms": starts_ms, "is_open": False, **later}
        self.wish = None
        await self._change(wish_id, **fields)
        return Sub(wish_id, wish_id.hex[-6:], deal, starts_ms)

    async def _learn(self, sub: Sub) -> None:
        """Fetches a subscription whose cycle at present is paid."""
        day, ends_ms = self._cycle(sub, self.now_ms)
        starts_ms = max(sub.starts_ms, _midnight(day))
        async with self.context.tenant_transaction(self.tenant_id) as session:
            row = await session.get_one(Subscription, (self.tenant_id, sub.id))
            row.status, row.current_start_ms, row.current_end_ms = "active", starts_ms, ends_ms
            row.paid_through_ms = ends_ms
            invoice = f"inv_{sub.suffix}_{starts_ms}"
            await record_cycle(
                session, row, starts_ms=starts_ms, ends_ms=ends_ms, razorpay_invoice_id=invoice, paid=True
            )
            await project(session, self.context.zone, self.tenant_id, self.now_ms)

    async def _change(self, subscription_id: UUID, **fields: Any) -> None:
        async with self.context.tenant_transaction(self.tenant_id) as session:
            row = await session.get_one(Subscription, (self.tenant_id, subscription_id))
            for name, value in fields.items():
                setattr(row, name, value)
            await end_replaced(session, row, self.now_ms)
            await project(session, self.context.zone, self.tenant_id, self.now_ms)

    # ------------------------------------------------------------------------------------------------------ usage

    async def grant(self, units: int) -> None:
        """Asks for units, is granted what admission's limits leave, and is billed for what it expects."""
        window, deal = self.expects()
        async with self.context.database.session() as session:
            row = await session.get(EntitlementRow, self.tenant_id)
        schedule = Schedule() if row is None else msgspec.convert(row.schedule, Schedule)
        limits = PlanLimits() if row is None else msgspec.convert(row.limits, PlanLimits)
        version = None if row is None else row.plan_version
        parts = segments_of(schedule, plan=limits, plan_version=version, defaults=PlanLimits())
        part = next(one for one in reversed(parts) if one.from_ms <= self.now_ms)
        if deal is None:
            assert part.refusal is not None
            return
        assert (part.refusal, part.plan_version or "") == (None, deal.plan)
        name = period_at(schedule.periods, self.now_ms, Calendar(self.context.zone.key)).name
        assert window_of(name) == window
        assert self.names.setdefault(name, (window, deal)) == (window, deal), "one segment has one deal"
        units = min(units, await self._room(window, part.limits))
        if units > 0:
            place = self.grants.place(window, deal)
            await self._count(name, window, place, 0)  # for the row that an open request has
            self.running.append((name, window, place, units))

    async def _room(self, window: str, limits: PlanLimits) -> int:
        """The output that fits the bounds, in the counters of the whole window."""
        used = sum(units for _, of, _, units in self.running if of == window)
        used += sum(sum(parts) for _, parts in self.grants.windows.get(window, ()))
        room = [bound.limit - used for bound in limits.bounds]
        if limits.ceiling is not None:
            (meter,) = limits.ceiling.meters
            room.append(meter.allowance + limits.ceiling.paise * 1_000_000 // meter.rate_paise - used)
        return min(room, default=1_000_000)

    async def settle(self, which: int = 0) -> None:
        """Settles one of the running requests, maybe long after its segment ended."""
        if self.running:
            name, window, place, units = self.running.pop(which % len(self.running))
            await self._count(name, window, place, units)

    async def credit(self, which: int, share: float) -> None:
        """Takes something off what was used in a segment."""
        used = [
            (name, window, place, sum(self.grants.windows[window][place][1]))
            for name, (window, deal) in self.names.items()
            for place, (other, _) in enumerate(self.grants.windows.get(window, ()))
            if other == deal and [d for d, _ in self.grants.windows[window]].count(deal) == 1
        ]
        if used:
            name, window, place, units = used[which % len(used)]
            await self._count(name, window, place, -int(units * share))

    async def _count(self, name: str, window: str, place: int, units: int) -> None:
        self.grants.use(window, place, units)
        await OperatorSetup(self.context).add_usage(self.tenant_id, name, output_tokens=units)

    # ------------------------------------------------------------------------------------------------------ bills

    async def billed(self) -> dict[str, int]:
        """Paise before tax of each window, by its documents that count."""
        query = select(Bill).where(Bill.tenant_id == self.tenant_id, Bill.state != "void", Bill.kind != "base")
        sums: dict[str, int] = {}
        async with self.context.database.session() as session:
            for bill in await session.scalars(query):
                window = window_of(bill.period_id)
                sums[window] = sums.get(window, 0) + bill.taxable_paise
        return sums

    async def pay(self) -> None:
        """Pays what is open, so that nothing is overdue."""
        query = select(Bill).where(Bill.tenant_id == self.tenant_id, Bill.state == "open")
        async with self.context.database.session() as session:
            bills = list(await session.scalars(query))
        for bill in bills:
            await OperatorSetup(self.context).pay(bill)
        async with self.context.tenant_transaction(self.tenant_id) as session:
            await project(session, self.context.zone, self.tenant_id, self.now_ms)


def _midnight(day: date) -> int:
    return to_ms(datetime(day.year, day.month, day.day, tzinfo=IST))
