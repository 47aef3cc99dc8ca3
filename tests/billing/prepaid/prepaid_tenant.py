"""A tenant on a prepaid plan: a rupee a token past the allowance of 1,000, without a subscription."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select, update

from billing.access.projection import project
from billing.collection.collection import collect, collect_bill
from billing.context import BillingContext
from billing.invoicing.period_close import close_due
from billing.models import Bill, BillingPeriod, Charge, LedgerEntry, Plan, WalletEntry
from billing.prepaid.top_ups import top_up
from billing.prepaid.wallets import run_wallets
from billing.razorpay.client import Razorpay as Gateway
from billing.razorpay.errors import RazorpayError
from billing.wallet.bounds import funds_of_periods, unused_paise
from billing.wallet.entries import balance_of
from core.clock import now_ms
from core.tenancy.audit import Actor
from metering.models import EntitlementRow
from metering.quota.limits import PlanLimits
from metering.quota.schedule import Schedule, segments_of
from tests.billing.billed_tenant import impatient
from tests.billing.operator import METERS, OperatorSetup
from tests.billing.signup import OPENS, OnRazorpaysClock, follow
from tests.simulated_razorpay import Razorpay

ACTOR = Actor("test")


class PrepaidTenant(OnRazorpaysClock):
    """The tenant, in this calendar month."""

    def __init__(self, setup: OperatorSetup, razorpay: Razorpay, tenant_id: UUID) -> None:
        self.setup, self.razorpay, self.tenant_id = setup, razorpay, tenant_id
        self.context: BillingContext = setup.context
        self.quick: Gateway | None = None

    @classmethod
    async def open(cls, setup: OperatorSetup, razorpay: Razorpay, **tenant: Any) -> "PrepaidTenant":
        """Publishes the plan and creates the tenant."""
        async with setup.context.database.session() as session:
            plan = Plan(code="pre", version=1, name="Pre", limits={}, meters=METERS, past_allowance="prepaid")
            session.add(plan)
        razorpay.reset(start=OPENS)
        follow(razorpay)
        made = cls(setup, razorpay, await setup.tenant(plan="pre", **tenant))
        await made.project()
        return made

    async def project(self) -> None:
        """Projects, which writes the month's row."""
        async with self.context.tenant_transaction(self.tenant_id) as session:
            await project(session, self.context.zone, self.tenant_id, now_ms())

    async def periods(self) -> Sequence[BillingPeriod]:
        """The rows of its months."""
        return await self.rows(BillingPeriod)

    async def funds(self, at_ms: int | None = None) -> dict[str, int]:
        """The amount that admission may grant in each period."""
        async with self.context.database.session() as session:
            return await funds_of_periods(session, self.tenant_id, at_ms or now_ms())

    async def month(self) -> str:
        """The name of the running period."""
        return str((await self.periods())[0].period_id)

    async def use(self, tokens: int) -> None:
        """Settles tokens in the running month."""
        await self.setup.add_usage(self.tenant_id, await self.month(), output_tokens=tokens)

    async def end_month(self) -> int:
        """Moves the clocks past the running month, and closes it."""
        await self.advance(to_ms=(await self.periods())[0].ends_ms + 60_000)
        return await close_due(self.context)

    async def top_up(self, paise: int) -> Bill:
        """Asks for a top-up, with its link."""
        bill = await top_up(self.context, ACTOR, self.tenant_id, paise)
        await collect_bill(self.context, self.tenant_id, bill.id)
        return bill

    async def top_up_by_qr(self, paise: int) -> Bill:
        """Asks for a top-up by UPI QR code, with the code."""
        bill = await top_up(self.context, ACTOR, self.tenant_id, paise, by_qr_code=True)
        await collect_bill(self.context, self.tenant_id, bill.id)
        return bill

    async def try_by_qr(self, paise: int) -> Bill:
        """The same, when Razorpay's answer to the code may be lost or a refusal."""
        bill = await top_up(self.context, ACTOR, self.tenant_id, paise, by_qr_code=True)
        with suppress(RazorpayError):
            await collect_bill(self.context, self.tenant_id, bill.id)
        return bill

    async def pay_code(self) -> None:
        """Scans and pays the last QR code."""
        self.razorpay.scan(self.codes()[-1]["id"])
        await self.collect()

    def be_impatient(self) -> None:
        """Waits shortly for Razorpay's answers."""
        self.context = impatient(self.context, self.razorpay)
        self.quick = self.context.razorpay

    def close(self) -> None:
        """Closes the client of short time-outs, if there is one."""
        if self.quick is not None:
            self.quick.close()

    def codes(self) -> list[dict[str, Any]]:
        """The QR codes at Razorpay, oldest first."""
        return list(self.razorpay.ledger()["qr_codes"])

    async def pay(self, bill: Bill) -> None:
        """Pays the link of a top-up."""
        self.razorpay.pay_link(str((await self.charge(bill)).razorpay_id))
        await self.collect()

    async def expire_link(self, bill: Bill) -> None:
        """Has the link of a top-up cancelled at Razorpay, as its expiry does."""
        await self.context.razorpay.cancel_payment_link(str((await self.charge(bill)).razorpay_id))
        await self.collect()

    async def collect(self) -> None:
        """Runs the duty COLLECT, with every charge due for a look."""
        await self.age()
        await collect(self.context)

    async def funded(self, paise: int) -> Bill:
        """Pays a top-up of so much before tax."""
        bill = await self.top_up(paise)
        await self.pay(bill)
        return await self.read(bill)

    async def age(self) -> None:
        """Makes every charge due for a look."""
        async with self.context.database.session() as session:
            await session.execute(update(Charge).values(checked_ms=0))

    async def charge(self, bill: Bill) -> Charge:
        """The last charge of a bill."""
        its: list[Charge] = [one for one in await self.rows(Charge) if one.bill_id == bill.id]
        return its[-1]

    async def read(self, bill: Bill) -> Bill:
        """The bill as it is now."""
        return await self.context.read(Bill, self.tenant_id, bill.id)

    async def run(self) -> None:
        """Runs the duty WALLETS."""
        await run_wallets(self.context)

    async def rows(self, table: Any) -> Sequence[Any]:
        """The tenant's rows, oldest first."""
        order = table.starts_ms if table is BillingPeriod else table.id
        async with self.context.database.session() as session:
            return (await session.scalars(select(table).where(table.tenant_id == self.tenant_id).order_by(order))).all()

    async def entries(self) -> list[tuple[str, int]]:
        """Kind and paise of each entry of the wallet, oldest first; those of one moment by kind and amount."""
        rows = sorted(await self.rows(WalletEntry), key=lambda row: (row.created_ms, row.kind, row.paise))
        return [(row.kind, row.paise) for row in rows]

    async def bills(self, kind: str) -> list[Bill]:
        """The documents of a kind."""
        return [row for row in await self.rows(Bill) if row.kind == kind]

    async def balance(self) -> tuple[int, int]:
        """The balance, and what of it is unused."""
        async with self.context.database.session() as session:
            unused = await unused_paise(session, self.tenant_id, now_ms())
            return await balance_of(session, self.tenant_id), unused

    async def booked(self) -> dict[str, int]:
        """The ledger's balances."""
        rows = await self.rows(LedgerEntry)
        names = ("receivable", "revenue", "gst_payable", "cash", "customer_credit", "write_off")
        return {name: total for name in names if (total := sum(getattr(row, name) for row in rows))}

    async def ceiling(self) -> int:
        """The amount that admission may grant in all in the running month, in paise."""
        async with self.context.database.session() as session:
            row = await session.get_one(EntitlementRow, self.tenant_id)
        schedule, own = msgspec.convert(row.schedule, Schedule), msgspec.convert(row.limits, PlanLimits)
        found = segments_of(schedule, plan=own, plan_version=row.plan_version, defaults=PlanLimits())
        now = next(one for one in reversed(found) if one.from_ms <= now_ms())
        assert now.limits.ceiling is not None
        return now.limits.ceiling.paise
