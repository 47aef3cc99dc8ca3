"""An operator with a plan, and tenants with periods and meters written by SQL, for tests of invoicing."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from billing.catalogue.profiles import Profile, Supplier
from billing.context import BillingContext
from billing.invoicing.period_close import close_due
from billing.ledger.movements import payment_received
from billing.models import (
    Bill,
    BillingFinding,
    BillingPeriod,
    BillingProfile,
    OperatorProfile,
    Payment,
    Plan,
    Refund,
)
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Terms
from core.clock import now_ms
from core.ids import uuid7
from core.tenancy.models import Tenant
from metering.models import UsageMeter, UsageRequest

DAY_MS = 86_400_000
PERIOD = "2026-01-05-abcdef"
RUPEE_A_TOKEN = 100_000_000
"""A rate of one rupee a token past the allowance, for simple sums."""
METERS = [{"meter": "output_tokens", "allowance": 1_000, "rate_paise": RUPEE_A_TOKEN}]
"""The meters of a plan, as its row has them."""
TERMS = Terms((MeterTerms(Meter.OUTPUT_TOKENS, 1_000, RUPEE_A_TOKEN),), PastAllowance.BILL, 10_000_000)
SUPPLIER = Supplier(
    legal_name="Naka Cloud Pvt Ltd",
    lines=("1 MG Road",),
    city="Bengaluru",
    postal_code="560001",
    state="29",
    gstin="29AAGCB7383J1Z4",
    lut_number="AD290426000001X",
    email="billing@naka.example",
)


def profile(state: str | None = "29", country: str = "IN") -> Profile:
    """A customer's profile, by default in the supplier's state."""
    return Profile(
        legal_name="Nimbus Tools",
        lines=("2 Brigade Road",),
        city="Somewhere",
        postal_code="560002",
        state=state,
        country=country,
        gstin=None,
        email="accounts@nimbus.example",
        contact=None,
    )


class OperatorSetup:
    """An operator with a plan and tenants."""

    def __init__(self, context: BillingContext) -> None:
        self.context = context

    @classmethod
    async def open(cls, context: BillingContext) -> "OperatorSetup":
        """Stores the operator's profile and the plan `team@1` at Rs 3,000."""
        async with context.database.session() as session:
            session.add(OperatorProfile(id=1, profile=msgspec.to_builtins(SUPPLIER)))
            session.add(
                Plan(
                    code="team",
                    version=1,
                    name="Team",
                    limits={},
                    base_paise=300_000,
                    meters=METERS,
                    past_allowance="bill",
                    ceiling_paise=10_000_000,
                )
            )
        return cls(context)

    async def tenant(self, *, named: Profile | None = None, plan: str | None = None, is_known: bool = True) -> UUID:
        """Creates a tenant, with a profile if `is_known`."""
        (made,) = await self.tenants(1, named=named, plan=plan, is_known=is_known)
        return made

    async def tenants(
        self, count: int, *, named: Profile | None = None, plan: str | None = None, is_known: bool = True
    ) -> list[UUID]:
        """Creates tenants."""
        ids = [uuid7() for _ in range(count)]
        version = None if plan is None else 1
        rows = [{"id": i, "slug": f"t{i.hex}", "name": "T", "plan_code": plan, "plan_version": version} for i in ids]
        async with self.context.database.session() as session:
            await session.execute(insert(Tenant).values(rows))
            if is_known:
                values = [{"tenant_id": i, "profile": msgspec.to_builtins(named or profile())} for i in ids]
                await session.execute(insert(BillingProfile).values(values))
        return ids

    async def set_profile(self, tenant_id: UUID, named: Profile | None = None) -> None:
        """Stores the tenant's profile."""
        async with self.context.database.session() as session:
            session.add(BillingProfile(tenant_id=tenant_id, profile=msgspec.to_builtins(named or profile())))

    async def period(
        self,
        tenant_id: UUID,
        name: str = PERIOD,
        *,
        terms: Terms = TERMS,
        ended_ms: int = DAY_MS,
        **more: Any,
    ) -> str:
        """Creates a cycle of 30 days that ended `ended_ms` ago."""
        (made,) = await self.periods([tenant_id], name, terms=terms, ended_ms=ended_ms, **more)
        return made

    async def periods(
        self, tenants: Sequence[UUID], name: str, *, terms: Terms = TERMS, ended_ms: int = DAY_MS, **more: Any
    ) -> list[str]:
        """Creates a cycle for each tenant."""
        ends_ms = now_ms() - ended_ms
        values = {
            "period_id": name,
            "kind": "cycle",
            "starts_ms": ends_ms - 30 * DAY_MS,
            "ends_ms": ends_ms,
            "plan_code": "team",
            "plan_version": 1,
            "terms": msgspec.to_builtins(terms),
            **more,
        }
        async with self.context.database.session() as session:
            await session.execute(insert(BillingPeriod).values([{"tenant_id": i, **values} for i in tenants]))
        return [name] * len(tenants)

    async def add_usage(self, tenants: Sequence[UUID] | UUID, name: str, *, shard: int = 0, **counts: int) -> None:
        """Adds to the period's meters."""
        ids = [tenants] if isinstance(tenants, UUID) else tenants
        statement = insert(UsageMeter).values(
            [{"tenant_id": i, "period_id": name, "shard": shard, **counts} for i in ids]
        )
        moved = {count: getattr(UsageMeter, count) + getattr(statement.excluded, count) for count in counts}
        async with self.context.database.session() as session:
            await session.execute(
                statement.on_conflict_do_update(index_elements=["tenant_id", "period_id", "shard"], set_=moved)
            )

    async def tenant_with_usage(self, tokens: int, *, named: Profile | None = None, **more: Any) -> UUID:
        """Creates a tenant whose period ended with `tokens` past the allowance."""
        tenant_id = await self.tenant(named=named)
        await self.period(tenant_id, PERIOD, **more)
        await self.add_usage(tenant_id, PERIOD, output_tokens=1_000 + tokens)
        return tenant_id

    async def open_request(self, tenant_id: UUID, name: str) -> UUID:
        """Creates an open request in the period."""
        request_id = uuid7()
        async with self.context.database.session() as session:
            row = UsageRequest(tenant_id=tenant_id, id=request_id, user_id=uuid7(), state="open", period_id=name)
            session.add(row)
        return request_id

    async def settle(self, tenant_id: UUID, request_id: UUID) -> None:
        """Settles a request."""
        async with self.context.database.session() as session:
            (await session.get_one(UsageRequest, (tenant_id, request_id))).state = "settled"

    async def close(self) -> int:
        """Runs the duty CLOSES once."""
        return await close_due(self.context)

    async def bills(self, tenant_id: UUID | None = None) -> list[Bill]:
        """The documents that were not replaced, oldest first."""
        query = select(Bill).where(Bill.reason.is_distinct_from("replaced"))
        if tenant_id is not None:
            query = query.where(Bill.tenant_id == tenant_id)
        async with self.context.database.session() as session:
            return list((await session.scalars(query.order_by(Bill.created_ms, Bill.kind.desc(), Bill.seq))).all())

    async def all_rows(self) -> dict[str, list[str]]:
        """All rows of billing, as text."""
        found: dict[str, list[str]] = {}
        async with self.context.database.session() as session:
            for table in (Bill, BillingPeriod, BillingFinding, Refund, Payment):
                name = table.__tablename__
                rows = await session.scalars(text(f"SELECT t.*::text FROM {name} t"))
                found[name] = sorted(rows.all())
        return found

    async def pay(self, bill: Bill) -> str:
        """Marks the whole bill as paid by a link."""
        name = f"pay_{bill.id.hex[-14:]}"
        async with self.context.tenant_transaction(bill.tenant_id) as session:
            row = await session.get_one(Bill, (bill.tenant_id, bill.id))
            row.state, row.paid_paise, row.paid_ms = "paid", row.total_paise, now_ms()
            session.add(
                Payment(
                    tenant_id=bill.tenant_id,
                    razorpay_id=name,
                    status="captured",
                    amount_paise=row.total_paise,
                    bill_id=bill.id,
                    applied_paise=row.total_paise,
                    captured_ms=now_ms(),
                )
            )
            await session.flush()
            payment = await session.get_one(Payment, (bill.tenant_id, name))
            await payment_received(session, payment, [(row, row.total_paise)], now_ms())
        return name

    async def refunds(self, tenant_id: UUID) -> list[tuple[str, int, str]]:
        """Payment, paise and cause of each refund."""
        async with self.context.database.session() as session:
            rows = await session.scalars(select(Refund).where(Refund.tenant_id == tenant_id).order_by(Refund.id))
            return [(row.payment_id, row.amount_paise, row.cause) for row in rows]

    async def findings(self) -> list[str]:
        """The kinds of open findings."""
        query = select(BillingFinding.kind).where(BillingFinding.closed_ms.is_(None))
        async with self.context.database.session() as session:
            return sorted((await session.scalars(query)).all())


def shown(bills: list[Bill]) -> list[tuple[str, str, int, int]]:
    """The compared fields of each bill."""
    return [(bill.kind, bill.state, bill.taxable_paise, bill.total_paise) for bill in bills]
