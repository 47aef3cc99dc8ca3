"""A tenant whose billing rows are written directly, for tests of the projection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import IST
from billing.access.periods import record_cycle
from billing.access.projection import project
from billing.context import lock_tenant
from billing.models import Bill, BillingPeriod, Plan, Subscription
from billing.rating.overage import Meter, MeterTerms, PastAllowance
from core.clock import to_ms
from core.ids import uuid7
from core.postgres.database import Database
from core.tenancy.models import Tenant
from metering.models import EntitlementRow
from metering.quota.limits import Limit, LimitSet, PlanLimits
from metering.quota.limits import Meter as LimitMeter
from metering.quota.schedule import Schedule, Segment
from metering.quota.windows import WindowKind

ZONE = ZoneInfo("Asia/Kolkata")
DAY_MS = 86_400_000
RAZORPAY_ID = "sub_TmA1c9RkVe7HbN"
MARK = "Ve7HbN"
BASE = PlanLimits(user=LimitSet((Limit(LimitMeter.REQUESTS, WindowKind.MINUTE, 60),)))


def at(text: str) -> int:
    """An Indian time."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=IST))


def plan(code: str, allowance: int, past: PastAllowance, **fields: Any) -> Plan:
    """A version of a plan with one meter."""
    return Plan(
        **{
            "code": code,
            "version": 1,
            "name": code,
            "limits": msgspec.to_builtins(BASE),
            "base_paise": 0,
            "meters": msgspec.to_builtins([MeterTerms(Meter.OUTPUT_TOKENS, allowance, 100)]),
            "past_allowance": past.value,
            "ceiling_paise": 50_000 if past is PastAllowance.BILL else None,
            "when_unpaid": "block",
            "trial_days": 0,
        }
        | fields
    )


class Subscriber:
    """One tenant on plan `free`, which may subscribe to `team` (`block`) or `grow` (`bill`)."""

    def __init__(self, database: Database, tenant_id: UUID) -> None:
        self.database = database
        self.tenant_id = tenant_id

    @classmethod
    async def open(cls, database: Database, own_plan: str | None = "free") -> "Subscriber":
        """Creates the tenant and the plans."""
        tenant_id = uuid7()
        async with database.session() as session:
            if await session.get(Plan, ("free", 1)) is None:
                session.add(plan("free", 100, PastAllowance.BLOCK))
                session.add(plan("team", 1000, PastAllowance.BLOCK, base_paise=99_900))
                session.add(plan("grow", 1000, PastAllowance.BILL, base_paise=99_900, when_unpaid="free"))
            own = {} if own_plan is None else {"plan_code": own_plan, "plan_version": 1}
            session.add(Tenant(id=tenant_id, slug=tenant_id.hex, name="Acme", **own))
        return cls(database, tenant_id)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[AsyncSession]:
        """One transaction under the tenant's lock."""
        async with self.database.session() as session:
            await lock_tenant(session, self.tenant_id)
            yield session

    async def subscribe(self, code: str = "team", **fields: Any) -> UUID:
        """Creates a subscription's row."""
        row = Subscription(
            **{
                "tenant_id": self.tenant_id,
                "id": uuid7(),
                "state": "submitted",
                "is_open": False,
                "plan_code": code,
                "plan_version": 1,
                "supply": {},
                "gross_paise": 117_882,
                "total_count": 12,
                "created_ms": at("2026-12-01"),
                "razorpay_id": RAZORPAY_ID,
                "status": "active",
                "payment_method": "card",
                "remaining_count": 11,
            }
            | fields
        )
        async with self.locked() as session:
            session.add(row)
        return row.id

    async def change(self, subscription_id: UUID, **fields: Any) -> None:
        """Changes a subscription's fields."""
        async with self.locked() as session:
            row = await session.get_one(Subscription, (self.tenant_id, subscription_id))
            for name, value in fields.items():
                setattr(row, name, value)

    async def learn(self, subscription_id: UUID, starts: str, ends: str, *, paid: bool = True) -> None:
        """Records a cycle by its invoice, and updates the subscription's current cycle."""
        starts_ms, ends_ms = at(starts), at(ends)
        async with self.locked() as session:
            row = await session.get_one(Subscription, (self.tenant_id, subscription_id))
            invoice = f"inv_{starts_ms}"
            await record_cycle(
                session, row, starts_ms=starts_ms, ends_ms=ends_ms, razorpay_invoice_id=invoice, paid=paid
            )
            if ends_ms > (row.current_end_ms or 0):
                row.current_start_ms, row.current_end_ms = starts_ms, ends_ms
            if paid:
                row.paid_through_ms = max(row.paid_through_ms or 0, ends_ms)

    async def project(self, now: str) -> bool:
        """Projects at a time; whether the entitlement changed."""
        return await self.project_at(at(now))

    async def project_at(self, now_ms: int) -> bool:
        """Like `project`, with a time in milliseconds."""
        async with self.locked() as session:
            await project(session, ZONE, self.tenant_id, now_ms)
            return bool(session.info.get("naka.changed"))

    async def owe(self, due: str, **fields: Any) -> UUID:
        """Creates an open bill for usage."""
        values: dict[str, Any] = {
            "tenant_id": self.tenant_id,
            "id": uuid7(),
            "kind": "overage",
            "state": "open",
            "period_id": "2026-11",
            "seq": 1,
            "starts_ms": 0,
            "ends_ms": 1,
            "plan_code": "grow",
            "plan_version": 1,
            "lines": [],
            "taxable_paise": 100,
            "supply": {},
            "tax": [],
            "total_paise": 118,
            "customer": {},
            "supplier": {},
            "created_ms": 1,
            "due_ms": at(due),
        }
        bill = Bill(**(values | fields))
        async with self.locked() as session:
            session.add(bill)
        return bill.id

    async def periods(self) -> dict[str, BillingPeriod]:
        """The rows, by name, oldest first."""
        query = select(BillingPeriod).where(BillingPeriod.tenant_id == self.tenant_id)
        async with self.database.session() as session:
            rows = await session.scalars(query.order_by(BillingPeriod.starts_ms, BillingPeriod.period_id))
            return {row.period_id: row for row in rows}

    async def entitlement(self) -> tuple[EntitlementRow, Schedule]:
        """The entitlement and its schedule."""
        async with self.database.session() as session:
            row = await session.get_one(EntitlementRow, self.tenant_id)
            return row, msgspec.convert(row.schedule, Schedule)

    async def holds(self, when: str) -> str:
        """The plan or refusal in force at a time."""
        row, schedule = await self.entitlement()
        segment = in_force(schedule, when)
        if segment is None:
            return row.plan_version
        return segment.refusal.code if segment.refusal is not None else str(segment.plan_version)


def in_force(schedule: Schedule, when: str) -> Segment | None:
    """The segment in force at a time; None if the row itself decides."""
    return next((one for one in reversed(schedule.segments) if one.from_ms <= at(when)), None)
