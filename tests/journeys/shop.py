"""A SaaS company: Naka's API, Razorpay's and Anthropic's simulators on one clock, and customers.

Billing's duties run in the test's process until nothing changes (`Shop.turn`). Journeys about workers start their own.
"""

import asyncio
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from billing.collection.collection import collect
from billing.context import BillingContext
from billing.invoicing.period_close import close_due
from billing.invoicing.threshold_bills import bill_thresholds
from billing.mandates.push import push_mandates
from billing.prepaid.wallets import run_wallets
from billing.subscriptions.push import push_subscriptions
from billing.webhooks.processing import process_events
from core.tenancy.principal import Scope
from tests.answers import Answer
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Books, Razorpay, Simulator, chat, scripted

DAY_S = 86_400
RATES = {"input_tokens": 40_000, "output_tokens": 150_000}
"""Paise per million units."""
ALLOWANCES = {"input_tokens": 1_000, "output_tokens": 500}
BASE_PAISE = 299_900
SCOPES = (Scope.CHAT, Scope.USAGE_READ, Scope.TENANT_ADMIN)
OPERATOR: dict[str, Any] = {
    "legal_name": "Naka Test Private Limited",
    "lines": ["1 Residency Road"],
    "city": "Bengaluru",
    "postal_code": "560025",
    "state": "29",
    "gstin": "29AAGCB7383J1Z4",
    "email": "accounts@naka.example",
}
CUSTOMER: dict[str, Any] = {
    "legal_name": "Nimbus Tools",
    "lines": ["2 Marine Drive"],
    "city": "Mumbai",
    "postal_code": "400020",
    "state": "27",
    "country": "IN",
    "email": "billing@nimbus.example",
    "contact": "+919812345670",
}


def rounded(numerator: int, denominator: int) -> int:
    """Rounds half up, independently of the product's arithmetic."""
    return (2 * numerator + denominator) // (2 * denominator)


def gross(net_paise: int) -> int:
    """The amount with 18 % IGST: customer in Maharashtra, supplier in Karnataka."""
    return net_paise + rounded(net_paise * 18, 100)


def overage(used: Counter[str], ceiling_paise: int | None = None) -> int:
    """The price of a period's usage past the allowance, before tax."""
    lines = [
        rounded(max(0, used[meter] - allowance) * RATES[meter], 1_000_000) for meter, allowance in ALLOWANCES.items()
    ]
    return sum(lines) if ceiling_paise is None else min(ceiling_paise, sum(lines))


@dataclass
class Customer:
    """A tenant's admin, who also chats."""

    shop: "Shop"
    account: Account
    ref: str = field(default_factory=lambda: uuid4().hex)

    async def call(self, method: str, path: str, *, expect: int = 200, **body: Any) -> Any:
        """Calls the API as this customer."""
        response = await self.shop.http.request(
            method, path, headers=self.account.headers, json=body if body or method in {"POST", "PUT"} else None
        )
        assert response.status_code == expect, f"{response.status_code}: {response.text}"
        return response.json() if response.content else None

    async def chat(self, *, input_tokens: int = 200, words: int = 5) -> Answer:
        """Sends a message, recorded in the provider's ledger under this customer's reference."""
        message = scripted(ref=self.ref, input_tokens=input_tokens, words=words)
        return await chat(self.shop.http, self.account, message)

    def used(self, since: int = 0) -> Counter[str]:
        """This customer's tokens in the provider's ledger, from its `since`th answer on."""
        total: Counter[str] = Counter()
        for row in self.shop.provider.ledger(self.ref)[since:]:
            for name, theirs in zip(TOKEN_FIELDS, LEDGER_FIELDS, strict=True):
                total[name] += row["usage"][theirs] if "usage" in row else row[theirs]
        return total

    async def subscribe(self, plan: str = "team", *, method: str = "upi", by_page: bool = False) -> dict[str, Any]:
        """Subscribes to the plan, authorises it, and runs the duties."""
        view = await self.call("POST", "/v1/billing/subscription", expect=201, plan=plan)
        waiting = view["waiting"]
        assert waiting["pay_url"], view
        if by_page:
            await asyncio.to_thread(post_form, waiting["pay_url"], method=method, outcome="ok")
        else:
            self.shop.razorpay.authorise(waiting["checkout"]["subscription_id"], method)
        await self.shop.turn()
        return dict(await self.call("GET", "/v1/billing/subscription"))

    async def current(self) -> dict[str, Any]:
        """The current subscription."""
        return dict((await self.call("GET", "/v1/billing/subscription"))["current"])

    async def current_end(self) -> int:
        """End of Razorpay's current cycle, Unix seconds."""
        query = "SELECT current_end_ms FROM subscriptions WHERE tenant_id = $1 ORDER BY id DESC LIMIT 1"
        (row,) = await self.rows(query)
        return int(row["current_end_ms"]) // 1000

    async def razorpay_id(self) -> str:
        """The subscription's id at Razorpay."""
        (row,) = await self.rows("SELECT razorpay_id FROM subscriptions WHERE tenant_id = $1 ORDER BY id DESC LIMIT 1")
        return str(row["razorpay_id"])

    async def bills(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The bills, oldest first."""
        rows = await self.rows("SELECT * FROM bills WHERE tenant_id = $1 ORDER BY created_ms, id")
        return [dict(row) for row in rows if kind in (None, row["kind"])]

    async def rows(self, query: str) -> list[Any]:
        """Rows of this tenant."""
        return list(await self.shop.books.fetch(query, self.account.tenant_id))

    async def pay_links(self) -> None:
        """Pays every open link, and runs the duties."""
        rows = await self.rows("SELECT razorpay_id FROM charges WHERE tenant_id = $1 AND state = 'submitted'")
        for row in rows:
            self.shop.razorpay.pay_link(row["razorpay_id"])
        await self.shop.turn()


class Shop:
    """The services and clocks of a journey."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        books: Books,
        context: BillingContext,
        razorpay: Razorpay,
        provider: Simulator,
        admin: Account,
    ) -> None:
        self.http, self.books, self.context = http, books, context
        self.razorpay, self.provider, self.admin = razorpay, provider, admin

    async def operate(self, method: str, path: str, *, expect: int = 200, **body: Any) -> Any:
        """Calls the admin API as the operator."""
        response = await self.http.request(method, path, headers=self.admin.headers, json=body or None)
        assert response.status_code == expect, f"{response.status_code}: {response.text}"
        return response.json() if response.content else None

    async def open(self) -> "Shop":
        """Stores the operator's profile and publishes a plan that bills."""
        await self.operate("PUT", "/v1/admin/operator", **OPERATOR)
        await self.publish("team")
        return self

    async def publish(self, code: str, **changed: Any) -> None:
        """Publishes a plan of Rs 2,999 with small allowances."""
        plan: dict[str, Any] = {
            "code": code,
            "name": code.title(),
            "base_paise": BASE_PAISE,
            "meters": [
                {"meter": meter, "allowance": ALLOWANCES[meter], "rate_paise": rate} for meter, rate in RATES.items()
            ],
            "past_allowance": "bill",
            "ceiling_paise": 1_000_000,
        }
        await self.operate("POST", "/v1/admin/plans", expect=201, **(plan | changed))

    async def customer(self, *, profile: bool = True) -> Customer:
        """Creates a tenant, with a profile."""
        customer = Customer(self, await self.books.account(scopes=SCOPES))
        if profile:
            await customer.call("PUT", "/v1/billing/profile", **CUSTOMER)
        return customer

    async def turn(self, *, rounds: int = 8) -> None:
        """Delivers webhooks and runs every duty until nothing changes."""
        before = None
        for _ in range(rounds):
            await asyncio.to_thread(self.razorpay.drain)
            await process_events(self.context)
            await push_subscriptions(self.context)
            await push_mandates(self.context)
            await bill_thresholds(self.context)
            await close_due(self.context)
            await run_wallets(self.context)
            await collect(self.context)
            now = await self.moved()
            if now == before:
                return
            before = now
        raise AssertionError(f"still changing after all rounds: {before}")

    async def moved(self) -> list[Any]:
        """The state that duties change."""
        tables = {
            "bills": "state, paid_paise, credited_paise",
            "charges": "state, razorpay_id",
            "mandates": "state, razorpay_id, token_id, wanted_end",
            "subscriptions": "state, status, cancel_state, paid_count",
            "webhook_events": "state",
            "refunds": "state",
            "billing_periods": "state, ends_ms",
            "wallet_entries": "reference",
        }
        return [
            [tuple(row) for row in await self.books.fetch(f"SELECT {columns} FROM {table} ORDER BY {table}::text")]
            for table, columns in tables.items()
        ]

    async def advance(self, *, days: float = 0, to: float | None = None) -> None:
        """Moves every clock, delivers webhooks on time, and runs the duties."""
        await asyncio.to_thread(lambda: self.razorpay.advance(days=days, to=to, drain=True))
        await self.turn()

    async def money_agrees(self) -> None:
        """Checks that Razorpay's net collection equals the paid bills, and that no bill was paid twice."""
        kept = self.razorpay.money()["totals"]["kept"]
        (row,) = await self.books.fetch(
            "SELECT coalesce(sum(paid_paise), 0)::bigint AS paid FROM bills WHERE state = 'paid'"
        )
        assert kept == row["paid"]
        over = await self.books.fetch("SELECT id FROM bills WHERE paid_paise > total_paise - credited_paise")
        assert over == []


def post_form(url: str, **fields: str) -> str:
    """Submits a form on a page of Razorpay's."""
    data = urllib.parse.urlencode(fields).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def taxable(bills: list[dict[str, Any]]) -> int:
    """The sum of the bills before tax, minus credit notes."""
    return sum(int(bill["taxable_paise"]) for bill in bills)


async def operator(books: Books) -> Account:
    """A platform admin's key."""
    return await books.account(scopes=(Scope.PLATFORM_ADMIN,))
