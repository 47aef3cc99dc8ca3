"""What the tests of money hold in their hands: bills to collect, and what became of them on both sides."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import select, update

from billing.collection.collection import collect
from billing.context import BillingContext
from billing.models import Bill, BillingFinding, Charge, Payment, Refund, Subscription
from billing.razorpay.client import Razorpay as Gateway
from billing.razorpay.transport import Patience
from core.clock import now_ms
from core.ids import uuid7
from core.tenancy.models import Tenant
from tests.simulated_razorpay import KEY_ID, KEY_SECRET, Razorpay

PAISE = 118_000
CUSTOMER = {"legal_name": "Nimbus Tools", "email": "billing@nimbus.example", "contact": "+919812345670"}
SUPPLY = {"treatment": "inter_state", "place": "29", "components": []}


class Till:
    """A tenant with bills, at a desk."""

    def __init__(self, context: BillingContext, razorpay: Razorpay, tenant_id: UUID) -> None:
        self.context, self.razorpay, self.tenant_id = context, razorpay, tenant_id

    @classmethod
    async def open(cls, context: BillingContext, razorpay: Razorpay) -> "Till":
        """At a new tenant's."""
        tenant_id = uuid7()
        async with context.database.session() as session:
            session.add(Tenant(id=tenant_id, slug=f"t{tenant_id.hex}", name="Nimbus"))
        return cls(context, razorpay, tenant_id)

    async def bill(self, paise: int = PAISE, **fields: Any) -> UUID:
        """An overage bill to be collected."""
        bill_id = uuid7()
        given: dict[str, Any] = {
            "kind": "overage",
            "state": "open",
            "period_id": f"2026-11-{bill_id.hex[-6:]}",
            "seq": 1,
            "starts_ms": 0,
            "ends_ms": 1,
            "plan_code": "team",
            "plan_version": 1,
            "lines": [],
            "taxable_paise": paise,
            "supply": SUPPLY,
            "tax": [],
            "total_paise": paise,
            "customer": CUSTOMER,
            "supplier": {},
            "number": f"N26/{bill_id.hex[-8:]}",
            "created_ms": now_ms(),
            "issued_ms": now_ms(),
            "due_ms": now_ms() + 7 * 86_400_000,
        }
        async with self.context.tenant_transaction(self.tenant_id) as session:
            session.add(Bill(tenant_id=self.tenant_id, id=bill_id, **(given | fields)))
        return bill_id

    async def collect(self, times: int = 1) -> None:
        """Runs the duty."""
        for _ in range(times):
            await collect(self.context)

    async def charges(self, bill_id: UUID) -> list[Charge]:
        """The attempts of a bill, in their order."""
        query = select(Charge).where(Charge.bill_id == bill_id).order_by(Charge.attempt)
        async with self.context.database.session() as session:
            return list((await session.scalars(query)).all())

    async def charge(self, bill_id: UUID) -> Charge:
        """The last attempt."""
        return (await self.charges(bill_id))[-1]

    async def read(self, bill_id: UUID) -> Bill:
        """The bill as it is."""
        async with self.context.database.session() as session:
            return await session.get_one(Bill, (self.tenant_id, bill_id))

    async def payments(self) -> list[Payment]:
        """All of the tenant's."""
        async with self.context.database.session() as session:
            query = select(Payment).where(Payment.tenant_id == self.tenant_id).order_by(Payment.captured_ms)
            return list((await session.scalars(query)).all())

    async def refunds(self) -> list[Refund]:
        """All of the tenant's."""
        async with self.context.database.session() as session:
            query = select(Refund).where(Refund.tenant_id == self.tenant_id).order_by(Refund.id)
            return list((await session.scalars(query)).all())

    async def findings(self) -> list[str]:
        """The kinds of what a person should know."""
        async with self.context.database.session() as session:
            return list((await session.scalars(select(BillingFinding.kind).order_by(BillingFinding.key))).all())

    async def age(self, ms: int = 3_600_001) -> None:
        """Makes what the charges and refunds remember so much older."""
        async with self.context.database.session() as session:
            moved = {"tried_ms": Charge.tried_ms - ms, "checked_ms": Charge.checked_ms - ms}
            await session.execute(update(Charge).values(moved))
            await session.execute(update(Refund).values({"tried_ms": Refund.tried_ms - ms}))

    async def change(self, bill_id: UUID, **fields: Any) -> None:
        """Changes a bill, as a credit note does."""
        async with self.context.tenant_transaction(self.tenant_id) as session:
            await session.execute(update(Bill).where(Bill.id == bill_id).values(fields))

    async def subscribe(self, method: str = "card_international", *, paise: int = 353_882) -> Subscription:
        """A subscription, authorised at Razorpay and known to us."""
        gateway = self.context.razorpay
        plan = await gateway.create_plan(name="Team", amount_paise=paise, notes={})
        made = await gateway.create_subscription(plan_id=plan.id, total_count=12, notes={})
        self.razorpay.authorise(made.id, method)
        told = await gateway.fetch_subscription(made.id)
        row = Subscription(
            tenant_id=self.tenant_id,
            id=uuid7(),
            state="submitted",
            is_open=False,
            plan_code="team",
            plan_version=1,
            supply=SUPPLY,
            gross_paise=paise,
            total_count=12,
            created_ms=now_ms(),
            razorpay_id=made.id,
            status=told.status,
            payment_method=told.payment_method,
            international=method == "card_international",
            current_start_ms=(told.current_start or 0) * 1000,
            current_end_ms=(told.current_end or 0) * 1000,
            remaining_count=told.remaining_count,
        )
        async with self.context.database.session() as session:
            session.add(row)
        return row

    # ------------------------------------------------------------------------------------- Razorpay's side

    def links(self, status: str | None = None) -> list[dict[str, Any]]:
        """The links at Razorpay, or those of one status."""
        return [one for one in self.razorpay.ledger()["links"] if status in (None, one["status"])]

    def addons(self) -> list[dict[str, Any]]:
        """The add-ons at Razorpay."""
        return list(self.razorpay.ledger()["addons"])

    def kept(self) -> int:
        """Paise that Razorpay collected and did not give back."""
        return int(self.razorpay.money()["totals"]["kept"])


def at(context: BillingContext, **rules: Any) -> BillingContext:
    """The same desk under other rules."""
    return replace(context, rules=replace(context.rules, **rules))


def hasty(context: BillingContext, razorpay: Razorpay) -> BillingContext:
    """The same desk with a gateway that does not wait for long; close its gateway."""
    patience = Patience(read_s=1, whole_s=3, retries=1, first_wait_s=0.01, longest_wait_s=0.02)
    secret = SecretStr(KEY_SECRET)
    return replace(
        context, razorpay=Gateway(key_id=KEY_ID, key_secret=secret, base_url=razorpay.url, patience=patience, threads=4)
    )
