"""A thousand requests with usage of every kind, fifty at a time: all four books equal the provider's, exactly."""

import asyncio
import random
from collections import Counter, defaultdict
from typing import Any

import httpx2
import redis.asyncio

from metering.admission.redis_scripts import tenant_key, user_key
from metering.counts import COUNT_COLUMNS
from metering.quota.counters import WindowState
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Books, Simulator, chat, scripted

REQUESTS = 1_000
AT_ONCE = 50
MODELS = ("claude-sonnet-4-6", "claude-haiku-5-5", "claude-opus-5-5", "claude-haiku-4-5", "claude-sonnet-5-5")
# USD per million tokens: input, output, cache read, 5 min write, 1 h write (Anthropic's documented prices);
# written out again here, so that the seeded list is tested too. haiku-5-5 has a second band over 100,000.
PRICES = {
    "claude-sonnet-4-6": ("3", "15", "0.30", "3.75", "6"),
    "claude-haiku-5-5": ("0.10", "0.50", "0.01", "0.125", "0.20"),
    "claude-haiku-5-5 large": ("0.50", "2.50", "0.05", "0.625", "1.00"),
    "claude-opus-5-5": ("4", "20", "0.20", "5", "8"),
    "claude-haiku-4-5": ("1", "5", "0.10", "1.25", "2"),
    "claude-sonnet-5-5": ("2", "10", "0.10", "2.50", "4"),
}


async def test_rows_rollup_meters_and_redis_equal_the_ledger(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator, redis_url: str
) -> None:
    first = await books.account()
    accounts = [first, *[await books.account(tenant_id=first.tenant_id) for _ in range(3)]]
    accounts += [await books.account() for _ in range(2)]
    shuffled = random.Random(11)
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(account: Account) -> None:
        message = scripted(
            ref=account.key_id.hex,
            words=shuffled.randint(1, 40),
            input_tokens=shuffled.choice((shuffled.randint(1, 300), 99_990, 100_001)),
            cache_read_input_tokens=shuffled.randint(0, 400),
            cache_creation_5m=shuffled.randint(0, 400),
            cache_creation_1h=shuffled.randint(0, 400),
            coalesce=shuffled.random() < 0.8,
            usage_delta_input=shuffled.random() < 0.5,
            unknown_events=shuffled.random() < 0.2,
        )
        async with gate:
            answer = await chat(http, account, message, model=shuffled.choice(MODELS))
        assert answer.status == 200, answer.error
        assert answer.done, answer.error

    await asyncio.gather(*(ask(shuffled.choice(accounts)) for _ in range(REQUESTS)))

    theirs = {account.user_id: _sums(simulator.ledger(account.key_id.hex)) for account in accounts}
    assert sum(sums["requests"] for sums in theirs.values()) == REQUESTS
    by_tenant: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    for account in accounts:
        by_tenant[account.tenant_id] += theirs[account.user_id]
        rows = await books.requests(account)
        assert {row["state"] for row in rows} == {"settled"}
        assert _total(rows) == theirs[account.user_id]
        daily = await books.fetch("SELECT * FROM usage_daily WHERE user_id = $1", account.user_id)
        assert _total(daily) == theirs[account.user_id]
    for tenant_id, sums in by_tenant.items():
        meters = await books.fetch("SELECT * FROM usage_meters WHERE tenant_id = $1", tenant_id)
        assert _total(meters) == sums
    await _assert_redis(redis_url, accounts, theirs, by_tenant)


async def _assert_redis(
    url: str, accounts: list[Account], theirs: dict[Any, Counter[str]], by_tenant: dict[Any, Counter[str]]
) -> None:
    async with redis.asyncio.Redis.from_url(url) as store:
        for account in accounts:
            user: Any = await store.hgetall(user_key(account.tenant_id, account.user_id))
            tenant: Any = await store.hgetall(tenant_key(account.tenant_id))
            for fields, sums in ((user, theirs[account.user_id]), (tenant, by_tenant[account.tenant_id])):
                assert fields[b"c"] == b"0"
                assert not [name for name in fields if name.startswith(b"h:")]
                (period,) = [value for name, value in fields.items() if name.startswith(b"p:")]
                state = WindowState.unpack(period)
                assert not any(state.held)
                assert Counter(dict(zip(COUNT_COLUMNS, state.used, strict=True))) == sums


def _sums(ledger: list[dict[str, Any]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for entry in ledger:
        assert entry["state"] == "completed"
        counts = [entry[name] for name in LEDGER_FIELDS]
        prompt = sum(counts) - entry["output_tokens"]
        large = entry["model"] == "claude-haiku-5-5" and prompt > 100_000
        rates = PRICES[entry["model"] + (" large" if large else "")]
        sums.update(dict(zip(TOKEN_FIELDS, counts, strict=True)), requests=1)
        sums["cost_nano_usd"] += sum(count * _nano_per_token(rate) for count, rate in zip(counts, rates, strict=True))
    return sums


def _nano_per_token(usd_per_mtok: str) -> int:
    whole, _, part = usd_per_mtok.partition(".")
    return int(whole) * 1_000 + int(part.ljust(3, "0") or 0)


def _total(rows: Any) -> Counter[str]:
    return Counter({name: sum(int(row[name]) for row in rows) for name in COUNT_COLUMNS})
