"""One tenant to which everything happens that can happen to money, in a random order, with an account of its own.

Razorpay's answers are made here, so that payments may be partial, double or late. `cash_paise` is counted by this class
alone.
"""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import select

from billing.collection.allocation import apply_invoice_payment, apply_link_payments
from billing.collection.charges import create_charge
from billing.collection.write_off import write_off_bill
from billing.context import BillingContext
from billing.findings.resolved import resolve_findings
from billing.invoicing.refunds_by_hand import credit_refunds_by_hand
from billing.models import Bill, Charge, Dispute, Refund, Subscription
from billing.models.states import LIVE, REFUND_UNSENT, RefundState
from billing.payments import refunds
from billing.payments.disputes import record_dispute
from billing.payments.payments import update_payment
from billing.rating.overage import Meter, MeterTerms, PastAllowance, Terms
from billing.razorpay import entities
from core.clock import DAY_MS, now_ms
from core.ids import uuid7
from core.tenancy.audit import Actor
from tests.billing.operator import PERIOD, OperatorSetup

TERMS = Terms((MeterTerms(Meter.OUTPUT_TOKENS, 0, 37_000_000),), PastAllowance.BILL, 10_000_000)
"""37 paise a token, so that small bills are below a rupee and notes leave odd paise."""
ACTOR = Actor("cli:test")
FEE = 117_882


class RandomMoney:
    """The tenant, and what Razorpay has of it."""

    def __init__(self, context: BillingContext, setup: OperatorSetup, tenant_id: UUID, on: UUID, seed: int) -> None:
        self.context, self.setup, self.tenant_id, self.subscription_id = context, setup, tenant_id, on
        self.draw = Random(seed)
        self.cash_paise = 0
        self.tokens: dict[str, int] = {}
        self._payments: dict[str, entities.Payment] = {}
        self._disputed: set[str] = set()
        self._made = 0

    @classmethod
    async def open(cls, context: BillingContext, setup: OperatorSetup, seed: int) -> "RandomMoney":
        """Creates the tenant with a subscription."""
        tenant_id = await setup.tenant()
        row = Subscription(
            tenant_id=tenant_id,
            id=uuid7(),
            state="submitted",
            is_open=False,
            plan_code="team",
            plan_version=1,
            supply={},
            gross_paise=FEE,
            total_count=12,
            created_ms=now_ms(),
            razorpay_id="sub_TmA1c9RkVe7HbN",
            status="active",
        )
        async with context.database.session() as session:
            session.add(row)
        return cls(context, setup, tenant_id, row.id, seed)

    async def step(self) -> str:
        """Lets one thing happen, and names it."""
        steps: list[Callable[[], Awaitable[None]]] = [
            self.new_period,
            self.new_period,
            self.more_usage,
            self.credit,
            self.credit,
            self.fee,
            self.pay,
            self.pay,
            self.pay,
            self.pay_late,
            self.end_refund,
            self.end_refund,
            self.send_again,
            self.refund_by_hand,
            self.dispute,
            self.dispute_again,
            self.write_off,
        ]
        chosen = self.draw.choice(steps)
        await chosen()
        await credit_refunds_by_hand(self.context)
        async with self.context.database.session() as session:
            await resolve_findings(session, now_ms())
        return chosen.__name__

    async def new_period(self) -> None:
        """A period ends with little or much usage."""
        name, tokens = f"{PERIOD[:-2]}{len(self.tokens):02d}", self.draw.choice([1, 2, 3, 50, 400, 4_001])
        await self.setup.period(self.tenant_id, name, terms=TERMS, ended_ms=(90 - len(self.tokens)) * DAY_MS)
        await self._use(name, tokens)

    async def more_usage(self) -> None:
        """Usage of a closed period settles late."""
        if self.tokens:
            await self._use(self.draw.choice(list(self.tokens)), self.draw.choice([1, 2, 77]))

    async def credit(self) -> None:
        """Usage of a closed period is credited, in part or in full."""
        used = [name for name, tokens in self.tokens.items() if tokens]
        if used:
            name = self.draw.choice(used)
            await self._use(name, -self.draw.choice([1, self.tokens[name], self.draw.randint(1, self.tokens[name])]))

    async def fee(self) -> None:
        """A cycle's invoice is paid, with an add-on that is nobody's now and then."""
        payment = self._pay(FEE + (extra := self.draw.choice([0, 0, 5_000])))
        starts = 1_796_409_000 + len(self._payments) * 2_678_400
        lines = [{"type": "plan", "amount": FEE}]
        lines += [{"type": "addon", "name": "by hand", "amount": extra}] if extra else []
        invoice = entities.Invoice(
            id=f"inv_{payment.id}",
            status="paid",
            amount=payment.amount,
            payment_id=payment.id,
            billing_start=starts,
            billing_end=starts + 2_678_400,
            line_items=lines,
        )
        async with self.context.tenant_transaction(self.tenant_id) as session:
            on = await session.get_one(Subscription, (self.tenant_id, self.subscription_id))
            await apply_invoice_payment(session, self.context, on, invoice, payment, now_ms())

    async def pay(self) -> None:
        """An open bill is paid: in full, in part, or twice."""
        bills = await self._rows(Bill, Bill.state == "open")
        if not bills:
            return
        bill = self.draw.choice(bills)
        await create_charge(self.context, self.tenant_id, bill.id)
        charges = await self._rows(Charge, Charge.bill_id == bill.id, Charge.state.in_(LIVE))
        if charges:
            due = charges[0].amount_paise
            parts = self.draw.choice([[due], [due, due], [self.draw.randint(1, due)], [max(1, due - 50)]])
            await self._apply(charges[0], [self._pay(paise) for paise in parts])

    async def pay_late(self) -> None:
        """Money comes on a link that was paid before."""
        charges = await self._rows(Charge, Charge.state == "paid")
        if charges:
            charge = self.draw.choice(charges)
            await self._apply(charge, [self._pay(charge.amount_paise)])

    async def end_refund(self) -> None:
        """A refund of ours is processed, or fails; a processed one may fail in the end."""
        states = (*REFUND_UNSENT, RefundState.PENDING, RefundState.PROCESSED)
        rows = [
            row for row in await self._rows(Refund, Refund.state.in_(states)) if row.payment_id not in self._disputed
        ]
        if rows:
            row = self.draw.choice(rows)
            status = "failed" if row.state == "processed" or self.draw.random() < 0.3 else "processed"
            moved = (status == "processed") - (row.state == "processed")
            self.cash_paise -= moved * row.amount_paise
            key = row.razorpay_id or f"rfnd_{row.id.hex}"
            await self._refunded(row.payment_id, key, row.amount_paise, status, moved, {"naka_refund": str(row.id)})

    async def send_again(self) -> None:
        """An operator sends a failed refund again, if the payment still has it."""
        failed = await self._rows(Refund, Refund.state == "failed")
        if failed:
            row = self.draw.choice(failed)
            payment = self._payments[row.payment_id]
            pending = await self._unsent(row.payment_id)
            if payment.amount - payment.amount_refunded - pending >= row.amount_paise and row.cause[:8] != "razorpay":
                await refunds.send_again(self.context, ACTOR, row.id, reason="bank details corrected")

    async def refund_by_hand(self) -> None:
        """Somebody refunds in the dashboard."""
        found = await self._free()
        if found:
            key, most = self.draw.choice(found)
            paise = self.draw.choice([most, self.draw.randint(100, most)])
            self.cash_paise -= paise
            self._made += 1
            await self._refunded(key, f"rfnd_{self._made}", paise, "processed", 1, {})

    async def dispute(self) -> None:
        """A dispute is lost, or won."""
        found = await self._free()
        if found:
            (key, most), status = self.draw.choice(found), self.draw.choice(["won", "lost"])
            if status == "lost":
                self._disputed.add(key)
                self.cash_paise -= most
            told = {"id": f"disp_{key}", "payment_id": key, "amount": most}
            for one in ("open", status, status, "open"):
                assert await record_dispute(self.context, {**told, "status": one})

    async def dispute_again(self) -> None:
        """A dispute that was lost is won after all, or the other way round."""
        rows = await self._rows(Dispute, Dispute.status.in_(("won", "lost")))
        if rows:
            row = self.draw.choice(rows)
            if row.status == "won" and row.payment_id not in self._disputed:
                return  # it was won at first, and the payment may be refunded since
            status = "lost" if row.status == "won" else "won"
            self.cash_paise += row.amount_paise if status == "won" else -row.amount_paise
            told = {"id": row.razorpay_id, "payment_id": row.payment_id, "amount": row.amount_paise}
            for one in (status, status, "open"):
                assert await record_dispute(self.context, {**told, "status": one})

    async def write_off(self) -> None:
        """An operator gives up a debt."""
        bills = await self._rows(Bill, Bill.state == "open", Bill.number.is_not(None))
        if bills:
            await write_off_bill(self.context, ACTOR, self.draw.choice(bills).id, "gone")

    # ---------------------------------------------------------------------------------------------- inside

    async def _use(self, name: str, tokens: int) -> None:
        self.tokens[name] = self.tokens.get(name, 0) + tokens
        await self.setup.add_usage(self.tenant_id, name, output_tokens=tokens)
        await self.setup.close()

    def _pay(self, paise: int) -> entities.Payment:
        self.cash_paise += paise
        self._made += 1
        key = f"pay_{self._made:06d}"
        made = entities.Payment(id=key, status="captured", amount=paise, currency="INR", created_at=now_ms() // 1000)
        self._payments[key] = made
        return made

    async def _apply(self, charge: Charge, payments: list[entities.Payment]) -> None:
        link = entities.PaymentLink(id=f"plink_{charge.id.hex}", status="paid", amount=1, created_at=1)
        async with self.context.tenant_transaction(self.tenant_id) as session:
            await apply_link_payments(session, self.context, charge, link, payments, now_ms())

    async def _refunded(
        self, payment_id: str, key: str, paise: int, status: str, moved: int, notes: dict[str, str]
    ) -> None:
        """A webhook tells of a refund, twice."""
        told = self._payments[payment_id]
        self._payments[payment_id] = entities.Payment(
            id=told.id,
            status=told.status,
            amount=told.amount,
            amount_refunded=told.amount_refunded + moved * paise,
            currency="INR",
            created_at=told.created_at,
        )
        refund = entities.Refund(id=key, payment_id=payment_id, amount=paise, status=status, created_at=1, notes=notes)
        for _ in range(2):
            async with self.context.tenant_transaction(self.tenant_id) as session:
                row = await update_payment(session, self._payments[payment_id])
                assert row is not None
                await refunds._apply(session, row, refund)

    async def _free(self) -> list[tuple[str, int]]:
        """Payments that can still be refunded or lost, and how much of each."""
        left = {
            key: one.amount - one.amount_refunded - await self._unsent(key)
            for key, one in self._payments.items()
            if key not in self._disputed
        }
        return [(key, paise) for key, paise in left.items() if paise >= 100]

    async def _unsent(self, payment_id: str) -> int:
        rows = await self._rows(Refund, Refund.payment_id == payment_id)
        return sum(row.amount_paise for row in rows if row.state in REFUND_UNSENT)

    async def _rows(self, table: Any, *conditions: Any) -> list[Any]:
        async with self.context.database.session() as session:
            return list(await session.scalars(select(table).where(table.tenant_id == self.tenant_id, *conditions)))
