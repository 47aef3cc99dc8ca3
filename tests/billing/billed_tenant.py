"""A tenant with bills to collect, and their state on both sides, for tests of collection."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import select, update

from billing.collection.collection import collect
from billing.context import BillingContext
from billing.invoicing.credit_notes import apply_note
from billing.invoicing.issuing import new_document
from billing.ledger.movements import document_issued
from billing.models import Bill, BillingFinding, Charge, Payment, Refund, Subscription
from billing.models.states import BillKind
from billing.razorpay.client import Razorpay as Gateway
from billing.razorpay.transport import Patience
from core.clock import now_ms
from core.ids import uuid7
from core.tenancy.models import Tenant
from tests.simulated_razorpay import KEY_ID, KEY_SECRET, Razorpay

PAISE = 118_000
CUSTOMER = {"legal_name": "Nimbus Tools", "email": "billing@nimbus.example", "contact": "+919812345670"}
SUPPLY = {"treatment": "inter_state", "place": "29", "components": []}


class BilledTenant:
    """A tenant with bills."""

    def __init__(self, context: BillingContext, razorpay: Razorpay, tenant_id: UUID) -> None:
        self.context, self.razorpay, self.tenant_id = context, razorpay, tenant_id

    @classmethod
    async def open(cls, context: BillingContext, razorpay: Razorpay) -> "BilledTenant":
        """Creates the tenant."""
        tenant_id = uuid7()
        async with context.database.session() as session:
            session.add(Tenant(id=tenant_id, slug=f"t{tenant_id.hex}", name="Nimbus"))
        return cls(context, razorpay, tenant_id)

    async def bill(self, paise: int = PAISE, **fields: Any) -> UUID:
        """Creates an open overage bill."""
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
            bill = Bill(tenant_id=self.tenant_id, id=bill_id, **(given | fields))
            session.add(bill)
            await session.flush()
            if bill.number is not None:
                await document_issued(session, bill, now_ms())
        return bill_id

    async def collect(self, times: int = 1) -> None:
        """Runs the duty COLLECT."""
        for _ in range(times):
            await collect(self.context)

    async def charges(self, bill_id: UUID) -> list[Charge]:
        """The charges of a bill, in order."""
        query = select(Charge).where(Charge.bill_id == bill_id).order_by(Charge.attempt)
        async with self.context.database.session() as session:
            return list((await session.scalars(query)).all())

    async def charge(self, bill_id: UUID) -> Charge:
        """The last charge of a bill."""
        return (await self.charges(bill_id))[-1]

    async def read(self, bill_id: UUID) -> Bill:
        """The current bill."""
        async with self.context.database.session() as session:
            return await session.get_one(Bill, (self.tenant_id, bill_id))

    async def payments(self) -> list[Payment]:
        """The tenant's rows, oldest first."""
        async with self.context.database.session() as session:
            query = select(Payment).where(Payment.tenant_id == self.tenant_id).order_by(Payment.captured_ms)
            return list((await session.scalars(query)).all())

    async def refunds(self) -> list[Refund]:
        """The tenant's rows, oldest first."""
        async with self.context.database.session() as session:
            query = select(Refund).where(Refund.tenant_id == self.tenant_id).order_by(Refund.id)
            return list((await session.scalars(query)).all())

    async def findings(self) -> list[str]:
        """The kinds of all findings."""
        async with self.context.database.session() as session:
            return list((await session.scalars(select(BillingFinding.kind).order_by(BillingFinding.key))).all())

    async def age(self, ms: int = 3_600_001) -> None:
        """Moves the times of all charges and refunds into the past."""
        async with self.context.database.session() as session:
            moved = {"tried_ms": Charge.tried_ms - ms, "checked_ms": Charge.checked_ms - ms}
            await session.execute(update(Charge).values(moved))
            await session.execute(update(Refund).values({"tried_ms": Refund.tried_ms - ms}))

    async def credit(self, bill_id: UUID, paise: int) -> UUID:
        """Credits a bill by a note, untaxed, without refunds."""
        async with self.context.tenant_transaction(self.tenant_id) as session:
            bill = await session.get_one(Bill, (self.tenant_id, bill_id))
            amounts = {"taxable_paise": -paise, "total_paise": -paise, "tax": [], "lines": [], "refers_to": bill_id}
            parties = {"supply": SUPPLY, "customer": CUSTOMER, "supplier": {}}
            note = await new_document(session, bill, BillKind.CREDIT_NOTE, now_ms(), **amounts, **parties)
            note.state, note.number, note.issued_ms = "issued", f"C26/{note.id.hex[-8:]}", now_ms()
            await apply_note(session, bill, note, now_ms())
        return note.id

    async def change(self, bill_id: UUID, **fields: Any) -> None:
        """Changes a bill."""
        async with self.context.tenant_transaction(self.tenant_id) as session:
            await session.execute(update(Bill).where(Bill.id == bill_id).values(fields))

    async def subscribe(self, method: str = "card_international", *, paise: int = 353_882) -> Subscription:
        """Creates a subscription that is authorised at Razorpay and stored here."""
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
        """The links at Razorpay, optionally of one status."""
        return [one for one in self.razorpay.ledger()["links"] if status in (None, one["status"])]

    def addons(self) -> list[dict[str, Any]]:
        """The add-ons at Razorpay."""
        return list(self.razorpay.ledger()["addons"])

    def net_collected(self) -> int:
        """Paise that Razorpay collected and did not refund."""
        return int(self.razorpay.money()["totals"]["kept"])


def with_rules(context: BillingContext, **rules: Any) -> BillingContext:
    """The context with other rules."""
    return replace(context, rules=replace(context.rules, **rules))


def impatient(context: BillingContext, razorpay: Razorpay) -> BillingContext:
    """The context with a client of short time-outs; close that client."""
    patience = Patience(read_s=1, whole_s=3, retries=1, first_wait_s=0.01, longest_wait_s=0.02)
    secret = SecretStr(KEY_SECRET)
    return replace(
        context, razorpay=Gateway(key_id=KEY_ID, key_secret=secret, base_url=razorpay.url, patience=patience, threads=4)
    )
