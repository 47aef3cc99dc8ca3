"""A journey whose webhooks are shuffled, repeated, dropped and delayed, with two workers that may be killed.

Events at Razorpay are the same each time; which webhooks Naka gets, and when, is drawn from a seed.
"""

import asyncio
import hashlib
import hmac
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import text

from billing.access.cycles import cycle_name
from billing.context import BillingContext
from billing.reconciliation import reconcile_razorpay
from billing.subscriptions.intents import subscribe
from billing.subscriptions.push import push_subscriptions
from billing.webhooks.inbox import Inbox
from core.postgres.database import Database
from tests import servers
from tests.billing.ledger_proof import proved
from tests.billing.operator import OperatorSetup
from tests.billing.signup import ACTOR, DAY_S, OPENS, Signup, follow
from tests.journeys.killable_worker import DUTIES, KillPoint, Worker, killable_worker
from tests.simulated_razorpay import WEBHOOK_SECRET, Razorpay

HOUR_S = 3600
TABLES = (
    "tenants, webhook_events, subscriptions, billing_periods, bills, charges, payments, refunds, billing_findings, "
    "document_series, razorpay_plans, plans, operator_profile, billing_profiles, usage_meters, entitlements, "
    "razorpay_reconciliations, billing_accounts"
)
MOVING = """
SELECT 'b', id::text, state FROM bills UNION ALL SELECT 'c', id::text, state FROM charges
UNION ALL SELECT 's', id::text, concat(state, status, cancel_state, paid_count) FROM subscriptions
UNION ALL SELECT 'm', id::text, concat(state, token_id, wanted_end) FROM mandates
UNION ALL SELECT 'p', period_id, state FROM billing_periods UNION ALL SELECT 'r', id::text, state FROM refunds
ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Order:
    """Parameters of a run. `chaos` 0: every webhook arrives in order and no worker dies."""

    seed: int
    chaos: int = 1
    drop: float = 0.2
    late: float = 0.3
    kills: int = 2


@dataclass
class Story:
    """Two customers over two cycles: one pays by UPI, one by a card that fails once."""

    context: BillingContext
    inbox: Inbox
    razorpay: Razorpay
    order: Order
    workers: list[Worker] = field(default_factory=list)
    customers: list[Signup] = field(default_factory=list)
    late: list[dict[str, Any]] = field(default_factory=list)
    told: int = 0
    fates: Counter[str] = field(default_factory=Counter)

    async def tell(self) -> "Story":
        """Runs the journey to the last paid link."""
        await self._subscribe()
        _, card = self.customers
        self.razorpay.outcomes(await self._id(card), ["insufficient_funds", "paid"])
        for tokens in (500, 700):
            await self._use(tokens)
            await self._happens()
            ends = max([await self._end(one) for one in self.customers])
            await self._to(ends + HOUR_S)
            await self._happens()
            await self._to(ends + 3 * DAY_S)
            await self._happens()
            await self._pay_links()
            await self._happens()
        await self._heal()
        return self

    # ------------------------------------------------------------------------------------- what happens

    async def _subscribe(self) -> None:
        """Subscribes both customers, and authorises it."""
        self.random = Random(self.order.seed)
        await self._open()
        for one in self.customers:
            await subscribe(self.context, ACTOR, one.tenant_id, "team")
        await self._happens()
        await self._made()
        await self._to(OPENS + HOUR_S)
        upi, card = self.customers
        for one, method in ((upi, "upi"), (card, "card_domestic")):
            self.razorpay.authorise(await self._id(one), method)
        await self._happens()

    async def _open(self) -> None:
        owner = Database(servers.owner(self.context.settings.database_url), pool_size=1)
        async with owner.session() as session:
            await session.execute(text(f"TRUNCATE {TABLES} CASCADE"))
        await owner.close()
        first = await Signup.open(self.context, self.razorpay)
        self.customers = [first, await first.neighbour()]
        self.workers = [killable_worker(self.context, self.random.randrange(2**32)) for _ in range(2)]

    async def _made(self) -> None:
        """Waits until the subscriptions are created at Razorpay."""
        for _ in range(4):
            if all(one["razorpay_id"] for one in await self.rows("SELECT razorpay_id FROM subscriptions")):
                return
            await self._to(self.razorpay.now() + 11 * 60)
            await push_subscriptions(self.context)
        raise AssertionError("a subscription was not made")

    async def _id(self, customer: Signup) -> str:
        (row,) = await customer.subscriptions()
        return str(row.razorpay_id)

    async def _theirs(self, customer: Signup) -> dict[str, Any]:
        key = await self._id(customer)
        return next(one for one in customer.at_razorpay() if one["id"] == key)

    async def _end(self, customer: Signup) -> int:
        return int((await self._theirs(customer))["current_end"])

    async def _use(self, tokens: int) -> None:
        """Adds usage to the current cycle."""
        for number, one in enumerate(self.customers):
            theirs = await self._theirs(one)
            name = cycle_name(theirs["current_start"] * 1000, theirs["id"][-6:])
            await OperatorSetup(self.context).add_usage(one.tenant_id, name, output_tokens=1_000 + tokens + number)

    async def _pay_links(self) -> None:
        for link in self.razorpay.ledger()["links"]:
            if link["status"] == "created":
                self.razorpay.pay_link(link["id"])

    async def _to(self, at_s: float) -> None:
        if at_s > self.razorpay.now():
            await asyncio.to_thread(lambda: self.razorpay.advance(to=at_s))
        follow(self.razorpay)

    # ---------------------------------------------------------------------------------- how it is heard

    async def _happens(self) -> None:
        """Delivers some webhooks while the workers run and may die."""
        kills = self.random.randint(0, self.order.kills) if self.order.chaos else 0
        news = self._news()
        bringing = asyncio.create_task(self._bring(news))
        lives = [self._life(worker, killed=kills > number) for number, worker in enumerate(self.workers)]
        await asyncio.gather(bringing, *lives)
        if not self.order.chaos:
            await self._rest()
        await self.holds()

    async def _life(self, worker: Worker, *, killed: bool) -> None:
        fate = cut_s = None
        if killed and self.random.random() < 0.7:
            fate = KillPoint(self.random.choice((1, 1, 2, 3, 4, 6, 9)), after=self.random.random() < 0.6)
        elif killed:
            cut_s = self.random.uniform(0.005, 0.08)
        await worker.live(2, fate, cut_s)

    def _news(self) -> list[dict[str, Any]]:
        """The deliveries of this round: some new, some delayed, repeated and shuffled."""
        parcels = self.razorpay.deliveries()
        fresh, self.told = parcels[self.told :], len(parcels)
        if not self.order.chaos:
            return fresh
        waiting, self.late, now = fresh + self.late, [], []
        for parcel in waiting:
            drawn = self.random.random()
            if drawn < self.order.drop:
                self.fates["dropped"] += 1
            elif drawn < self.order.drop + self.order.late:
                self.late.append(parcel)
                self.fates["late"] += 1
            else:
                now += [parcel] * self.random.choice((1, 1, 1, 2, 3, 16))
        self.random.shuffle(now)
        return now

    async def _bring(self, news: list[dict[str, Any]]) -> None:
        for parcel in news:
            body = parcel["body"].encode()
            signature = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
            assert self.inbox.is_genuine(body, signature)
            await self.inbox.store(body, parcel["event_id"])
            assert not self.inbox.is_genuine(body + b" ", signature)

    async def _rest(self) -> None:
        """Runs every duty until nothing changes."""
        before = None
        for _ in range(8):
            for duty in DUTIES:
                await duty(self.context)
            now = await self.rows(MOVING)
            if now == before:
                return
            before = now
        raise AssertionError("still changing after all rounds")

    async def _heal(self) -> None:
        """Advances time, reconciles, pays open links, then delivers every webhook again."""
        for _ in range(3):
            await self._to(self.razorpay.now() + HOUR_S / 2)
            await self._rest()
            await reconcile_razorpay(self.context)
            await self._rest()
            await self._pay_links()
        await self._to(self.razorpay.now() + 2 * HOUR_S)
        await reconcile_razorpay(self.context)
        await self._rest()
        await self._bring(self.razorpay.deliveries() * (2 if self.order.chaos else 1))
        await self._rest()
        await self.holds()
        await proved(self.context)

    async def holds(self) -> None:
        """The invariant: at most one payable or paid link, or debit, per bill."""
        ledger = self.razorpay.ledger()
        bills = Counter(_bill(one["reference_id"]) for one in ledger["links"] if one["status"] in {"created", "paid"})
        receipts = {order["id"]: order["receipt"] for order in ledger["orders"]}
        failed = {one["id"] for one in ledger["payments"] if one["status"] == "failed"}
        debits = [one for one in ledger["debits"] if one["payment_id"] not in failed]
        bills.update(_bill(receipts[one["order_id"]]) for one in debits)
        assert not {bill for bill, count in bills.items() if count > 1}, "a bill can be paid twice"

    async def rows(self, query: str) -> list[Any]:
        """Rows as mappings."""
        async with self.context.database.session() as session:
            return list((await session.execute(text(query))).mappings())


def _bill(reference: str) -> str:
    return reference.split("-", maxsplit=1)[0]
