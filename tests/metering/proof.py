"""The kit of the reconciliation tests: random traffic, all rows of a tenant, and the findings of a check."""

import asyncio
import random
from typing import Any
from uuid import UUID

from core.clock import now_ms
from core.tenancy.audit import Actor
from metering.pricing.tokens import Usage
from metering.quota.query import Grant
from metering.reconciliation.drifts import Month, Reconciliation
from metering.reconciliation.reconcile import Scope, reconcile
from metering.tags.tags import Tags
from tests.harness import Account, Books
from tests.metering.ledger_driver import draw_usage
from tests.metering.process import Process
from tests.metering.rows import KOLKATA
from tests.metering.tagged import declare

OPERATOR = Actor("cli:test")
SOME_TAGS: tuple[Tags, ...] = (
    (),
    (("feature", "search"),),
    (("conversation", "c-1"), ("feature", "search")),
    (("conversation", "c-2"), ("team", "x")),
)
"""`team` is no declared key."""
TABLES = {
    "usage_requests": "id",
    "usage_daily": "user_id, day, period_id, key_id, model",
    "usage_monthly": "user_id, month, period_id, key_id, model",
    "usage_by_day": "day, period_id, model, shard",
    "usage_by_tag": "tag_key, tag_value, day, period_id, shard",
    "usage_meters": "period_id, shard",
    "usage_entries": "id",
}


async def check(process: Process, tenant_id: UUID) -> Reconciliation:
    """All checks of one tenant."""
    return await reconcile(process.pool, process.quota, Scope((tenant_id,)))


def found(run: Reconciliation) -> dict[str, int]:
    """The number of drifts, by check."""
    return {name: done.found for name, done in run.checks.items() if done.found}


async def traffic(process: Process, accounts: list[Account], dice: random.Random, requests: int) -> list[Grant]:
    """Concurrent requests of all accounts; returns those that still run."""

    async def one(account: Account, usage: Usage, tags: Tags, *, ends: bool) -> Grant | None:
        grant = await process.admit(account, max_tokens=1 + usage.output_tokens, tags=tags)
        if ends:
            await process.settle(grant, usage)
        return None if ends else grant

    wanted = [
        one(dice.choice(accounts), draw_usage(dice), dice.choice(SOME_TAGS), ends=dice.random() < 0.8)
        for _ in range(requests)
    ]
    return [grant for grant in await asyncio.gather(*wanted) if grant is not None]


async def everything(books: Books, tenant_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All rows of the tenant."""
    return {
        table: [
            dict(row)
            for row in await books.fetch(f"SELECT * FROM {table} WHERE tenant_id = $1 ORDER BY {by}", tenant_id)
        ]
        for table, by in TABLES.items()
    }


async def audited(books: Books, tenant_id: UUID) -> list[str]:
    """The repairs in the audit log."""
    rows = await books.fetch("SELECT action FROM audit_log WHERE tenant_id = $1 AND action LIKE 'usage.%'", tenant_id)
    return [row["action"] for row in rows]


async def three_users(books: Books) -> list[Account]:
    """Three users of one tenant."""
    first = await books.account()
    await declare(books, first.tenant_id, "feature", "conversation")
    return [first, *[await books.account(tenant_id=first.tenant_id) for _ in range(2)]]


def this_month() -> Month:
    """The operator's month."""
    return Month(KOLKATA.month(now_ms()).name)
