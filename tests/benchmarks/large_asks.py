"""Ten Claude Codes and a few chats on one day's limit: how the rule for large requests shares the last of it.

    python -m tests.benchmarks.large_asks [--seeds 5] [--limit 2000000]

A Claude Code asks for 128,000 or 32,000 output tokens and uses a thirtieth on average (log-normal); its prompt has 12
to 22 thousand tokens in 49 to 88 kB. It tries ten times, `retry-after` apart; then its user asks again a minute later.
A chat asks for 2,048 tokens and tries three times. Nobody asks any more once the limit is used up.

The decisions are those of admit.lua in a real Valkey; time is simulated, so that a run takes seconds and repeats.
`used` is the share of the limit when the last Claude Code has stopped, and `in all` when the last chat has. `early`:
before nine tenths are used. An answer is cut by the `limit` if an otherwise idle limit would have cut it too, and else
by the `share` of it that was granted.
"""

import argparse
import asyncio
import heapq
import math
import random
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from metering.pricing.tokens import (
    PROMPT_OVERHEAD_TOKENS,
    TOOLS_OVERHEAD_TOKENS,
    bound_of_count,
    bound_of_text,
    likely_of_text,
)
from metering.quota.counters import NO_COUNTS
from metering.quota.limits import Limit, LimitSet, Meter, PlanLimits, resolve
from metering.quota.query import LARGE_OUTPUT, Grant, QuotaTerms, Refused
from metering.quota.windows import Window, WindowKind
from sandbox.valkey import Valkey
from tests.metering.model import query_of

HOUR_MS = 3_600_000
NEVER_LARGE = 1_000_000
SMALLEST = 64
COUNTS_PER_MINUTE = 30
USED_PART = 30
SPREAD = 1.2
"""Of the logarithm of an answer's length: one in eight is twice the mean or longer."""
TOKENS_PER_S = 60.0
FIRST_TOKEN_S = 2.0
CLAUDE_CODES = (128_000,) * 5 + (32_000,) * 5
CHATS = 5
AGAIN_S = 60.0
EARLY = 0.9


@dataclass(frozen=True)
class Rule:
    """A way to grant. `learnt`: asks for twice the longest recent answer; `counted`: every large prompt is counted."""

    name: str
    large: int
    learnt: bool = False
    counted: bool = False


RULES = (
    Rule("until now", NEVER_LARGE),
    *(Rule(f"half, large > {large:,}", large) for large in (2_048, 4_096, 8_192, LARGE_OUTPUT, 32_000)),
    Rule("learnt sizes", NEVER_LARGE, learnt=True),
    Rule(f"half, large > {LARGE_OUTPUT:,}, counted", LARGE_OUTPUT, counted=True),
)


@dataclass
class Client:
    """A Claude Code or a chat, between two requests: the request that it makes, and how often it was refused."""

    user: UUID
    ask: int
    tries: int
    pause_s: tuple[float, float]
    prompt_bytes: int = 0
    prompt: int = 0
    wanted: int = 0
    refused: int = 0
    began_s: float = 0.0

    @property
    def is_large(self) -> bool:
        return self.ask > LARGE_OUTPUT

    def next_request(self, draw: random.Random, now_s: float) -> None:
        """Draws the next prompt and the length of its answer."""
        self.began_s, self.refused = now_s, 0
        if self.is_large:
            self.prompt_bytes, self.prompt = draw.randint(49_000, 88_000), draw.randint(12_000, 22_000)
            mean = self.ask / USED_PART
        else:
            self.prompt_bytes = draw.randint(100, 4_000)
            self.prompt, mean = self.prompt_bytes // 4 + 10, 300.0
        self.wanted = max(1, min(self.ask, int(draw.lognormvariate(math.log(mean) - SPREAD**2 / 2, SPREAD))))


@dataclass
class Result:
    """Of one run."""

    used: int = 0
    used_by_codes: int = 0
    refusals: int = 0
    given_up: int = 0
    given_up_early: int = 0
    cut_by_limit: int = 0
    cut_by_share: int = 0
    answers: int = 0
    chats: int = 0
    chats_failed: int = 0
    chats_failed_early: int = 0
    waits_s: list[float] = field(default_factory=list)
    chat_waits_s: list[float] = field(default_factory=list)


class Simulation:
    """One tenant's day under a rule."""

    def __init__(self, quota: QuotaScripts, rule: Rule, limit: int, seed: int) -> None:
        self.quota, self.rule, self.limit = quota, rule, limit
        self.draw = random.Random(seed)
        self.tenant, self.result = uuid4(), Result()
        self.entitlement = resolve(
            PlanLimits(tenant=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, limit),))),
            user=None,
            tenant=None,
            plan_version=None,
        )
        self.events: list[tuple[float, int, Callable[[float], Awaitable[None]]]] = []
        self.order = count()
        self.counted_s: list[float] = []
        self.lengths: dict[int, list[int]] = {}
        self.terms: QuotaTerms
        codes = [Client(uuid4(), ask, 10, (1.0, 8.0)) for ask in CLAUDE_CODES]
        self.clients = [*codes, *(Client(uuid4(), 2_048, 3, (5.0, 30.0)) for _ in range(CHATS))]

    def at(self, time_s: float, happen: Callable[[float], Awaitable[None]]) -> None:
        """Schedules an event."""
        heapq.heappush(self.events, (time_s, next(self.order), happen))

    async def run(self) -> Result:
        """Runs until every client has stopped."""
        now_ms, run_id = await self.quota.now_ms(), await self.quota.pipeline.connect()
        day = Window(WindowKind.DAY, "2026-11-22", now_ms - HOUR_MS, now_ms + HOUR_MS)
        period = Window(WindowKind.PERIOD, "2026-11", now_ms - HOUR_MS, now_ms + HOUR_MS)
        self.terms = QuotaTerms(self.entitlement, day, period, period.name, now_ms - HOUR_MS, now_ms + HOUR_MS, 1, 5)
        assert await self.quota.build_tenant(self.tenant, 1, run_id, {})
        for client in self.clients:
            assert await self.quota.build_user(self.tenant, client.user, 1, run_id, {})
            self.rest(client, 0.0)
        while self.events:
            now_s, _, happen = heapq.heappop(self.events)
            await happen(now_s)
        assert self.result.used <= self.limit
        return self.result

    def rest(self, client: Client, now_s: float) -> None:
        """The client makes its next request after a pause."""

        async def begin(at_s: float) -> None:
            client.next_request(self.draw, at_s)
            await self.ask(client, at_s)

        self.at(now_s + self.draw.uniform(*client.pause_s), begin)

    async def ask(self, client: Client, now_s: float) -> None:
        """One try."""
        overhead = PROMPT_OVERHEAD_TOKENS + (TOOLS_OVERHEAD_TOKENS if client.is_large else 0)
        bound, likely = (of(client.prompt_bytes, overhead) for of in (bound_of_text, likely_of_text))
        exact = bound_of_count(client.prompt)
        if self.rule.counted and client.is_large:
            bound = likely = exact
        answer = await self.admit(client, bound, likely)
        if isinstance(answer, Refused) and answer.worth_counting and self.may_count(now_s):
            answer = await self.admit(client, min(bound, exact), min(bound, exact))
        if isinstance(answer, Grant):
            self.stream(client, answer, now_s)
        else:
            self.refuse(client, answer, now_s)

    async def admit(self, client: Client, bound: int, likely: int) -> Grant | Refused:
        """The answer of admit.lua."""
        asked = client.ask
        if self.rule.learnt and client.is_large and client.ask in self.lengths:
            asked = min(asked, max(LARGE_OUTPUT, 2 * max(self.lengths[client.ask][-20:])))
        query = query_of(
            self.tenant,
            client.user,
            prompt=bound,
            likely=likely,
            asked=asked,
            smallest=SMALLEST,
            read_epoch=1,
            ttl_ms=HOUR_MS,
            large=self.rule.large,
        )
        answer = await self.quota.admit(query, self.terms)
        assert isinstance(answer, Grant | Refused)
        return answer

    def may_count(self, now_s: float) -> bool:
        """Whether the tenant has a count left in this minute."""
        self.counted_s = [at_s for at_s in self.counted_s if at_s > now_s - 60]
        self.counted_s.append(now_s)
        return len(self.counted_s) <= COUNTS_PER_MINUTE

    def stream(self, client: Client, grant: Grant, now_s: float) -> None:
        """The answer runs, ends and is settled; a client whose answer was cut asks for the rest."""
        result, granted = self.result, grant.request.held_output_tokens
        output = min(client.wanted, granted)
        if output < client.wanted:
            idle = self.limit - result.used - grant.request.held_prompt_tokens
            result.cut_by_limit += idle < client.wanted
            result.cut_by_share += idle >= client.wanted
        (result.waits_s if client.is_large else result.chat_waits_s).append(now_s - client.began_s)

        async def end(at_s: float) -> None:
            counts = [1, client.prompt, output, *NO_COUNTS[3:]]
            await self.quota.settle(self.tenant, client.user, grant.request.id, counts)
            result.used += client.prompt + output
            if client.is_large:
                result.answers += 1
                result.used_by_codes = result.used
                self.lengths.setdefault(client.ask, []).append(output)
            else:
                result.chats += 1
            self.rest(client, at_s)

        self.at(now_s + FIRST_TOKEN_S + output / TOKENS_PER_S, end)

    def refuse(self, client: Client, refused: Refused, now_s: float) -> None:
        """The client waits and tries again, gives up, or stops for the day."""
        result = self.result
        if refused.cause != "held":
            return
        result.refusals += client.is_large
        client.refused += 1
        if client.refused < client.tries:
            wait_s = (refused.ends_ms - refused.now_ms) / 1000 * self.draw.uniform(1, 1.25)
            self.at(now_s + wait_s, lambda at_s: self.ask(client, at_s))
            return
        early = result.used < EARLY * self.limit
        if client.is_large:
            result.given_up += 1
            result.given_up_early += early
            result.waits_s.append(now_s - client.began_s)
        else:
            result.chats_failed += 1
            result.chats_failed_early += early
        self.rest(client, now_s + (AGAIN_S if client.is_large else 0))


async def run(seeds: int, limit: int, url: str) -> None:
    """Prints a line per rule: the means over the seeds."""
    pipeline = RedisPipeline(url, timeout_s=10)
    pipeline.start()
    quota = QuotaScripts(pipeline)
    columns = "used least in-all answers refusals given-up early p95-wait cut:limit share chats failed early wait"
    print(f"{'rule':28}", *(f"{column:>9}" for column in columns.split()))
    for rule in RULES:
        results = [await Simulation(quota, rule, limit, seed).run() for seed in range(seeds)]
        print(f"{rule.name:28}", *(f"{figure:9.1f}" for figure in figures(results, limit)), flush=True)
    await pipeline.stop()


def figures(results: Sequence[Result], limit: int) -> list[float]:
    """The columns of a rule: per cent, seconds, and means per run."""

    def mean(name: str) -> float:
        return float(statistics.mean(getattr(one, name) for one in results))

    return [
        100 * mean("used_by_codes") / limit,
        100 * min(one.used_by_codes for one in results) / limit,
        100 * mean("used") / limit,
        *map(mean, ("answers", "refusals", "given_up", "given_up_early")),
        statistics.quantiles([wait_s for one in results for wait_s in one.waits_s], n=20)[-1],
        *map(mean, ("cut_by_limit", "cut_by_share", "chats", "chats_failed", "chats_failed_early")),
        statistics.mean(wait_s for one in results for wait_s in one.chat_waits_s),
    ]


def main() -> None:
    """Starts a Valkey and runs every rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=2_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder), settings={"appendonly": "no"}) as valkey:
        asyncio.run(run(options.seeds, options.limit, valkey.url))


if __name__ == "__main__":
    main()
