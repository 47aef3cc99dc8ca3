"""A thousand requests over both routes, fifty at a time, a tenth cut: all four books equal the provider's, by model.

Every class of usage, every modifier of a price, and usage that the provider reports by inference.
"""

import asyncio
import random
from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

import httpx2
import redis.asyncio

from metering.admission.redis_scripts import tenant_key
from metering.counts import COUNT_COLUMNS
from metering.quota.counters import WindowState
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Books, Simulator, chat, scripted

REQUESTS = 1_000
AT_ONCE = 50
MODELS = ("claude-sonnet-4-6", "claude-haiku-5-5", "claude-opus-5-5", "claude-haiku-4-5", "claude-sonnet-5-5")
# USD per million tokens: input, output, cache read, 5 min write, 1 h write; written out again here, as is the band.
PRICES = {
    "claude-sonnet-4-6": ("3", "15", "0.30", "3.75", "6"),
    "claude-haiku-5-5": ("0.10", "0.50", "0.01", "0.125", "0.20"),
    "claude-haiku-5-5 large": ("0.50", "2.50", "0.05", "0.625", "1.00"),
    "claude-opus-5-5": ("4", "20", "0.20", "5", "8"),
    "claude-haiku-4-5": ("1", "5", "0.10", "1.25", "2"),
    "claude-sonnet-5-5": ("2", "10", "0.10", "2.50", "4"),
}
WEB_SEARCH_NANO_USD = 10_000_000
COLUMNS = dict(zip(TOKEN_FIELDS, LEDGER_FIELDS, strict=True)) | {
    "thinking_tokens": "thinking_tokens",
    "web_searches": "web_searches",
}
"""Our names, and those of the provider's ledger."""
ByModel = dict[str, Counter[str]]


class Traffic:
    """Random requests."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def script(self, ref: str, model: str) -> dict[str, Any]:
        """An answer with usage of every kind."""
        pick = self.random
        script: dict[str, Any] = {
            "ref": ref,
            "words": pick.randint(1, 40),
            "cache_read_input_tokens": pick.randint(0, 400),
            "cache_creation_5m": pick.randint(0, 400),
            "cache_creation_1h": pick.randint(0, 400),
            "input_tokens": pick.choice((pick.randint(1, 300), 99_990, 100_001)),
        }
        kind = pick.randrange(10)
        if kind == 0:
            script |= {"cut_after": 2}
        elif kind == 1:
            script |= {"web_searches": pick.randint(1, 3)}
        elif kind == 2 and model == "claude-opus-5-5":
            script |= {"speed": "fast"}
        elif kind == 3 and model != "claude-haiku-4-5":
            script |= {"inference_geo": "us"}
        elif kind == 4:
            script |= {"service_tier": "batch"}
        elif kind == 5:
            entries = [
                {"type": "compaction", "input_tokens": 70, "output_tokens": 7},
                {"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 30, "output_tokens": 9},
                {"input_tokens": 40, "output_tokens": 5},
            ]
            script = {"ref": ref, "words": 5, "iterations": entries}
        elif kind == 6:
            script = {"ref": ref, "refusal": "empty"}
        return script

    def thinks(self, model: str) -> dict[str, Any]:
        """Turns thinking on, now and then; as the model has it."""
        if self.random.random() > 0.2:
            return {}
        enabled = {"type": "enabled", "budget_tokens": 1024}
        return {"thinking": enabled if model == "claude-haiku-4-5" else {"type": "adaptive", "display": "omitted"}}


async def ask(http: httpx2.AsyncClient, account: Account, model: str, script: dict[str, Any], **more: Any) -> None:
    """One request to `/v1/messages`."""
    turns = [{"role": "user", "content": scripted(**script)}]
    body = {"model": model, "max_tokens": 3000, "messages": turns, **more}
    headers = {**account.headers, "anthropic-version": "2026-10-21"}
    answer = await http.post("/v1/messages", json=body, headers=headers)
    assert answer.status_code == 200 or "cut_after" in script, answer.text


async def test_all_books_equal_the_providers_by_model(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator, redis_url: str
) -> None:
    first = await books.account()
    accounts = [first, *[await books.account(tenant_id=first.tenant_id) for _ in range(3)], await books.account()]
    traffic, gate = Traffic(13), asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        account, model = traffic.random.choice(accounts), traffic.random.choice(MODELS)
        script, thinks = traffic.script(account.key_id.hex, model), traffic.thinks(model)
        route, stream = traffic.random.random() < 0.4, traffic.random.random() < 0.5
        async with gate:
            if route:
                await chat(http, account, scripted(**script), model=model)
            elif "cut_after" in script:
                await ask(http, account, model, script, stream=stream)
            else:
                await ask(http, account, model, script, stream=stream, **thinks)

    await asyncio.gather(*(one() for _ in range(REQUESTS)))

    by_tenant: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    for account in accounts:
        ref = account.key_id.hex
        count = len(simulator.ledger(ref))
        await books.settled(account, count)
        theirs = priced(simulator.inferences(ref))
        daily = await books.fetch("SELECT * FROM usage_daily WHERE user_id = $1", account.user_id)
        assert by_model(daily) == theirs
        assert sum(row["requests"] for row in daily) == count
        rows = await books.requests(account)
        entries = await books.fetch("SELECT * FROM usage_entries WHERE user_id = $1", account.user_id)
        assert by_model([*rows, *entries]) == theirs
        by_tenant[account.tenant_id] += total(daily)
    for tenant_id, sums in by_tenant.items():
        assert total(await books.fetch("SELECT * FROM usage_meters WHERE tenant_id = $1", tenant_id)) == sums
        async with redis.asyncio.Redis.from_url(redis_url) as store:
            fields: Any = await store.hgetall(tenant_key(tenant_id))
        (period,) = [value for name, value in fields.items() if name.startswith(b"p:")]
        state = WindowState.unpack(period)
        assert not any(state.held)
        assert dict(zip(COUNT_COLUMNS, state.used, strict=True)) == {name: sums[name] for name in COUNT_COLUMNS}


def priced(inferences: list[dict[str, Any]]) -> ByModel:
    """What the provider bills, by model."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in inferences:
        if row["charged"]:
            sums[row["model"]].update({ours: row[theirs] for ours, theirs in COLUMNS.items()})
            sums[row["model"]]["cost_nano_usd"] += cost(row)
    return {model: +counts for model, counts in sums.items() if +counts}


def cost(row: dict[str, Any]) -> int:
    """The price of one inference: the documented one, written a second time."""
    counts = [row[name] for name in LEDGER_FIELDS]
    prompt = sum(counts) - row["output_tokens"]
    large = row["model"] == "claude-haiku-5-5" and prompt > 100_000
    rates = PRICES[row["model"] + (" large" if large else "")]
    usd = sum((count * Fraction(rate) / 10**6 for count, rate in zip(counts, rates, strict=True)), Fraction())
    factor = Fraction(1)
    if row["speed"] == "fast":
        factor *= 2
    if row["inference_geo"] == "us":
        factor *= Fraction(11, 10)
    if row["service_tier"] == "batch":
        factor *= Fraction(1, 2)
    nano = usd * factor * 10**9
    searches: int = row["web_searches"]
    return -(-nano.numerator // nano.denominator) + searches * WEB_SEARCH_NANO_USD


def by_model(rows: list[Any]) -> ByModel:
    """The sums of rows, by model."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        sums[row["model"]].update({name: int(row[name]) for name in (*COLUMNS, "cost_nano_usd")})
    return {model: +counts for model, counts in sums.items() if +counts}


def total(rows: list[Any]) -> Counter[str]:
    """The sums of rows."""
    return Counter({name: sum(int(row[name]) for row in rows) for name in COUNT_COLUMNS})
