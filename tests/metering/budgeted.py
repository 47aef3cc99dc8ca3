"""Callers with budgets: short-lived tokens, and requests with a limited tag; and what Postgres has of them."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from core.clock import to_ms
from core.tenancy.principal import Principal
from metering.admission.admission import QuotaExceeded
from metering.pricing.tokens import Usage
from metering.quota.limits import Limit, Meter
from metering.quota.query import Grant
from metering.quota.windows import WindowKind
from metering.tags.tags import TOKEN_KEY, Tags
from tests.harness import TOKEN_FIELDS, Account, Books
from tests.metering.process import Process, principal

SEARCH: Tags = (("feature", "search"),)


def token(account: Account, name: str = "t-1", **budget: int) -> Principal:
    """The caller with a short-lived token that has this budget; it ends in an hour."""
    ends_ms = to_ms(datetime.now(UTC) + timedelta(hours=1))
    return replace(principal(account), token_id=name, budget=tuple(budget.items()), expires_at_ms=ends_ms)


async def limit_tag(books: Books, account: Account, *limits: Limit, tags: Tags = SEARCH) -> None:
    """Declares the keys of the tags, and gives each these limits."""
    stored = msgspec.json.encode(limits).decode()
    for key, value in tags:
        await books.fetch(
            "INSERT INTO tag_keys (tenant_id, key) VALUES ($1, $2) ON CONFLICT DO NOTHING", account.tenant_id, key
        )
        await books.fetch(
            "INSERT INTO tag_limits (tenant_id, key, value, limits) VALUES ($1, $2, $3, $4::jsonb)"
            " ON CONFLICT (tenant_id, key, value) DO UPDATE SET limits = excluded.limits",
            account.tenant_id,
            key,
            value,
            stored,
        )


def at_most(meter: Meter, limit: int, window: WindowKind = WindowKind.DAY) -> Limit:
    return Limit(meter, window, limit)


async def crowd_as(
    process: Process, who: Principal, size: int, *, tags: Tags = (), max_tokens: int = 100
) -> list[Grant]:
    """So many at once; those that are granted. The others are refused, and nothing else happens to any."""
    async with asyncio.timeout(60):
        answers = await asyncio.gather(
            *(process.admit_as(who, tags=tags, max_tokens=max_tokens) for _ in range(size)), return_exceptions=True
        )
    for answer in answers:
        assert isinstance(answer, Grant | QuotaExceeded), answer
    return [answer for answer in answers if isinstance(answer, Grant)]


async def use_up_as(process: Process, who: Principal, *, tags: Tags = ()) -> int:
    """Asks and uses all that is granted, until the budget is used up; how often it was granted."""
    granted = 0
    while True:
        try:
            grant = await process.admit_as(who, tags=tags)
        except QuotaExceeded as refusal:
            if refusal.code == "budget_exhausted":
                return granted
            if refusal.code != "held":
                raise
            await asyncio.sleep(0.02)
        else:
            await asyncio.sleep(0.02)  # it runs
            await process.settle(grant, Usage(grant.request.held_prompt_tokens, grant.request.held_output_tokens))
            granted += 1


async def used_by(books: Books, account: Account, key: str = TOKEN_KEY) -> tuple[int, int, int]:
    """Requests, tokens and nano-USD of the rows that have a tag with this key, settled or not."""
    held, used = "held_prompt_tokens + held_output_tokens", " + ".join(TOKEN_FIELDS)
    (row,) = await books.fetch(
        "SELECT count(*) AS requests,"
        f" coalesce(sum(CASE state WHEN 'open' THEN {held} ELSE {used} END), 0)::bigint AS tokens,"
        " coalesce(sum(CASE state WHEN 'open' THEN held_nano_usd ELSE cost_nano_usd END), 0)::bigint AS nano_usd"
        " FROM usage_requests WHERE tenant_id = $1 AND state <> 'void' AND $2 = ANY (tag_keys)",
        account.tenant_id,
        key,
    )
    return row["requests"], row["tokens"], row["nano_usd"]
