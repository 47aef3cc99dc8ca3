"""Requests for 128,000 output tokens: each takes half of the rest, none passes a limit, small ones run beside them."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.admission.admission import QuotaExceeded, TooLarge
from metering.pricing.tokens import Usage
from metering.quota.query import LARGE_OUTPUT, Grant
from tests.harness import TOKEN_FIELDS, Account, Books
from tests.metering.outage import tokens
from tests.metering.process import PATIENCE_S, Process, principal, text_ask

LARGE = 128_000
PROMPT_BYTES, PROMPT = 68, 100
RACERS, REQUESTS, TRIES = 12, 4, 30
ASKS = st.tuples(st.sampled_from([LARGE, LARGE, 32_000, 2_048, 0]), st.integers(0, 40_000), st.sampled_from([1, 2, 30]))


async def ask(process: Process, account: Account, output: int, *, smallest: int | None = None) -> Grant:
    request = replace(text_ask(output, PROMPT_BYTES), smallest_output=smallest)
    return await process.admission.admit(principal(account), request, within_s=PATIENCE_S)


async def test_each_takes_half_of_the_room_and_a_small_one_still_gets_all_that_it_asks(
    either: Process, books: Books
) -> None:
    account = await books.account(tenant_limits=tokens(200_000 + PROMPT))
    grants = [await ask(either, account, LARGE) for _ in range(4)]
    assert [grant.request.held_output_tokens for grant in grants] == [100_000, 49_950, 24_925, LARGE_OUTPUT]
    with pytest.raises(QuotaExceeded) as refused:
        await ask(either, account, LARGE)
    assert (refused.value.code, refused.value.retry_after_s) == ("held", 1)
    small = await ask(either, account, 2_048)
    assert small.request.held_output_tokens == 2_048
    for grant in (*grants, small):
        await either.settle(grant, Usage(PROMPT, 1_000))
    assert (await ask(either, account, 32_000)).request.held_output_tokens == 32_000


async def test_a_grant_is_never_below_the_fewest_tokens_that_the_request_names(either: Process, books: Books) -> None:
    account = await books.account(limits=tokens(60_000))
    grants = [await ask(either, account, 64_000, smallest=32_001), await ask(either, account, 64_000)]
    assert [grant.request.held_output_tokens for grant in grants] == [32_001, LARGE_OUTPUT]
    with pytest.raises(QuotaExceeded) as refused:
        await ask(either, account, 64_000, smallest=32_001)
    assert refused.value.code == "held"


async def test_a_limit_that_output_does_not_count_in_cuts_no_answer(either: Process, books: Books) -> None:
    account = await books.account()  # no limit at all
    assert (await ask(either, account, LARGE)).request.held_output_tokens == LARGE


@dataclass
class Race:
    """Clients of one tenant, and what they hold and have used, as they know it."""

    process: Process
    account: Account
    limit: int
    used: int = 0
    held: dict[int, int] = field(default_factory=dict)

    async def run(self, output: int, prompt_bytes: int, part: int) -> None:
        """One client: a few requests, each of which uses a part of its grant."""
        for _ in range(REQUESTS):
            grant = await self._granted(output, prompt_bytes)
            if grant is None:
                return
            request = grant.request
            self.held[id(request)] = request.held_prompt_tokens + request.held_output_tokens
            assert self.used + sum(self.held.values()) <= self.limit, "past the limit"
            await asyncio.sleep(0)
            usage = Usage(request.held_prompt_tokens // part, request.held_output_tokens // part)
            self.used += usage.input_tokens + usage.output_tokens
            del self.held[id(request)]
            await self.process.settle(grant, usage)

    async def _granted(self, output: int, prompt_bytes: int) -> Grant | None:
        for _ in range(TRIES):
            try:
                return await self.process.admission.admit(
                    principal(self.account), text_ask(output, prompt_bytes), within_s=PATIENCE_S
                )
            except TooLarge:
                return None
            except QuotaExceeded as refused:
                if refused.code != "held":
                    return None
                await asyncio.sleep(0.01)
        return None


@pytest.mark.slow
@given(limit=st.integers(10_000, 600_000), asks=st.lists(ASKS, min_size=RACERS, max_size=RACERS))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_racing_large_requests_never_pass_a_limit(
    either: Process, books: Books, limit: int, asks: list[tuple[int, int, int]]
) -> None:
    account = await books.account(tenant_limits=tokens(limit))
    race = Race(either, account, limit)
    await asyncio.gather(*(race.run(*one) for one in asks))
    rows = await books.requests(account)
    assert {row["state"] for row in rows} <= {"settled"}
    assert sum(row[name] for row in rows for name in TOKEN_FIELDS) == race.used <= limit
    assert race.held == {}
