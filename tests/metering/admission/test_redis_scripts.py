"""The answers of the quota scripts: grants cut at the limit, refusals and their reasons, classes, large numbers."""

from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from core.ids import uuid7
from metering.admission.redis_scripts import QuotaScripts, tenant_key, user_key
from metering.quota.counters import Hold, WindowState
from metering.quota.limits import MAX_LIMIT, Limit, LimitSet, Meter, PlanLimits, resolve
from metering.quota.query import Answer, Grant, QuotaTerms, Refused, Retry
from metering.quota.windows import Window, WindowKind, minute_window
from tests.metering.model import query_of

MINUTE, DAY, PERIOD = WindowKind.MINUTE, WindowKind.DAY, WindowKind.PERIOD
HOUR_MS = 3_600_000
RATE = 15
PROMPT_RATE = 6
SEARCH_RATE = 100
INPUT_CLASSES = (Meter.INPUT, Meter.CACHE_READ, Meter.CACHE_WRITE_5M, Meter.CACHE_WRITE_1H, Meter.CACHE_WRITE)


@dataclass
class QuotaUser:
    """One user of one tenant, with limits of its own; hashes are built, and empty except for `used`."""

    quota: QuotaScripts
    user_limits: LimitSet
    tenant_limits: LimitSet
    tenant: UUID
    user: UUID
    day: Window
    period: Window
    minute: str

    async def ask(
        self, *, prompt: int = 0, asked: int = 100, smallest: int = 10, likely: int | None = None, searches: int = 0
    ) -> Answer:
        """The answer to one query."""
        terms = QuotaTerms(
            resolve(PlanLimits(), user=self.user_limits, tenant=self.tenant_limits, plan_version=None),
            self.day,
            self.period,
            self.period.name,
            from_ms=max(self.day.starts_ms, self.period.starts_ms),
            until_ms=min(self.day.ends_ms, self.period.ends_ms),
            prompt_rate=PROMPT_RATE,
            output_rate=RATE,
            search_rate=SEARCH_RATE,
        )
        query = query_of(
            self.tenant,
            self.user,
            prompt=prompt,
            likely=prompt if likely is None else likely,
            asked=asked,
            smallest=smallest,
            read_epoch=1,
            ttl_ms=60_000,
            searches=searches,
        )
        return await self.quota.admit(query, terms)

    async def granted(self, **question: int) -> Grant:
        """A query that is granted."""
        answer = await self.ask(**question)
        assert isinstance(answer, Grant), answer
        return answer

    async def refused(self, **question: int) -> Refused:
        """A query that is refused."""
        answer = await self.ask(**question)
        assert isinstance(answer, Refused), answer
        return answer

    async def settle(self, grant: Grant, *counts: int) -> int:
        """Settles with nine counts."""
        return await self.quota.settle(self.tenant, self.user, grant.request.id, counts)

    async def windows(self, *names: str) -> tuple[WindowState, ...]:
        """The user's windows."""
        answer = await self.quota.read(self.tenant, self.user, names)
        assert isinstance(answer, tuple)
        return answer[0].windows


async def quota_user(
    quota: QuotaScripts,
    *limits: Limit,
    tenant: LimitSet | None = None,
    concurrency: int | None = None,
    used: WindowState | None = None,
) -> QuotaUser:
    """A user whose day and period have `used`."""
    now = await quota.now_ms()
    user = QuotaUser(
        quota,
        LimitSet(limits, concurrency),
        tenant or LimitSet(),
        uuid4(),
        uuid4(),
        Window(DAY, "2026-11-22", now - HOUR_MS, now + HOUR_MS),
        Window(PERIOD, "2026-11", now - HOUR_MS, now + 2 * HOUR_MS),
        f"m:{minute_window(now).name}",
    )
    run = await quota.pipeline.connect()
    fields = {"d:2026-11-22": used.pack(), "p:2026-11": used.pack()} if used else {}
    assert await quota.build_tenant(user.tenant, 1, run, fields)
    assert await quota.build_user(user.tenant, user.user, 1, run, fields)
    return user


async def test_the_last_answer_is_cut_at_the_limit(quota: QuotaScripts) -> None:
    user = await quota_user(quota, Limit(Meter.TOKENS, DAY, 300))
    first = await user.granted(prompt=100, asked=500)
    assert (first.request.held_output_tokens, first.room) == (200, (0,))
    await user.settle(first, 1, 90, 120, 0, 0, 0, 99, 9, 0)
    second = await user.granted(prompt=60, asked=500)
    assert (second.request.held_output_tokens, second.room) == (30, (0,))
    await user.settle(second, 1, 60, 20, 0, 0, 0, 20, 9, 0)
    assert (await user.granted(prompt=0, asked=500)).request.held_output_tokens == 10  # the smallest, and the last


async def test_too_little_left_is_used_until_the_window_ends(quota: QuotaScripts) -> None:
    user = await quota_user(
        quota,
        Limit(Meter.TOKENS, DAY, 109),
        Limit(Meter.TOKENS, PERIOD, 109),
        used=WindowState((1, 100, 0, 0, 0, 0, 0, 0, 0)),
    )
    refused = await user.refused(asked=100)
    assert (refused.cause, refused.limit, refused.ends_ms) == ("used", 1, user.period.ends_ms)  # the later of the two
    assert (await user.granted(asked=9)).request.held_output_tokens == 9  # asked for less than the smallest


async def test_held_by_other_requests_is_another_cause_than_used(quota: QuotaScripts) -> None:
    user = await quota_user(quota, Limit(Meter.TOKENS, DAY, 1_000))
    first = await user.granted(asked=600)
    refused = await user.refused(asked=1_000)
    assert (refused.cause, refused.limit, refused.ends_ms - refused.now_ms) == ("held", 0, 1_000)
    assert (await user.granted(asked=800)).request.held_output_tokens == 400  # half of what it could have: not less
    await user.settle(first, 1, 0, 50, 0, 0, 0, 0, 0, 0)
    assert (await user.granted(asked=1_000)).request.held_output_tokens == 550


async def test_a_large_request_takes_half_of_the_room_but_a_usual_answer_if_that_is_free(quota: QuotaScripts) -> None:
    user = await quota_user(quota, Limit(Meter.TOKENS, DAY, 40_000))
    first, second = await user.granted(asked=32_000), await user.granted(asked=32_000)
    assert [one.request.held_output_tokens for one in (first, second)] == [20_000, 16_384]
    refused = await user.refused(asked=32_000)
    assert (refused.cause, refused.limit, refused.ends_ms - refused.now_ms) == ("held", 0, 1_000)
    assert (await user.granted(asked=3_616)).room == (0,)


async def test_what_never_fits_has_a_cause_of_its_own(quota: QuotaScripts) -> None:
    user = await quota_user(quota, Limit(Meter.TOKENS, DAY, 100), used=WindowState((1, 100, 0, 0, 0, 0, 0, 0, 0)))
    assert (await user.refused(prompt=91)).cause == "never"
    assert (await user.refused(prompt=90)).cause == "used"


async def test_a_count_is_worth_it_only_where_the_likely_size_would_be_granted(quota: QuotaScripts) -> None:
    user = await quota_user(quota, Limit(Meter.TOKENS, DAY, 100))
    assert (await user.refused(prompt=91, likely=90)).worth_counting
    assert not (await user.refused(prompt=92, likely=91)).worth_counting


@pytest.mark.parametrize(("of_user", "most"), [(True, 1), (False, 1), (True, 0), (False, 0)])
async def test_requests_at_a_time(quota: QuotaScripts, *, of_user: bool, most: int) -> None:
    if of_user:
        user = await quota_user(quota, concurrency=most)
    else:
        user = await quota_user(quota, tenant=LimitSet(concurrency=most))
    running = [await user.granted() for _ in range(most)]
    refused = await user.refused()
    assert (refused.cause, refused.limit, refused.of_user) == ("held" if most else "never", None, of_user)
    for held in running:
        await user.settle(held, *[0] * 9)
        await user.granted()


@pytest.mark.parametrize("meter", INPUT_CLASSES)
async def test_a_prompt_is_held_whole_in_every_class_and_settled_in_its_own(quota: QuotaScripts, meter: Meter) -> None:
    user = await quota_user(quota, Limit(meter, DAY, 100))
    first = await user.granted(prompt=60)
    assert (first.request.held_output_tokens, first.room) == (100, (40,))
    assert (await user.refused(prompt=41)).cause == "held"
    assert await user.settle(first, 1, 1, 2, 3, 4, 5, 2, 7, 6) == 2
    left = 100 - {Meter.INPUT: 1, Meter.CACHE_READ: 3, Meter.CACHE_WRITE_5M: 4, Meter.CACHE_WRITE_1H: 5}.get(meter, 9)
    assert (await user.refused(prompt=left + 1)).cause == "used"
    assert (await user.granted(prompt=left)).room == (0,)


async def test_searches_are_held_by_the_most_and_settled_by_those_that_ran(quota: QuotaScripts) -> None:
    user = await quota_user(quota, Limit(Meter.WEB_SEARCHES, DAY, 5), tenant=LimitSet((Limit(Meter.SPEND, DAY, 1),)))
    first = await user.granted(searches=3)  # 1,000 nano-USD less 3 * 100: 46 tokens at 15
    assert (first.request.held_output_tokens, first.room) == (46, (2, 10))
    assert (first.request.held_web_searches, first.request.held_nano_usd) == (3, 990)
    assert (await user.windows("d:2026-11-22"))[0] == WindowState((0,) * 9, (1, 0, 46, 3, 990))
    assert (await user.refused(searches=3)).cause == "held"
    assert (await user.refused(searches=6)).cause == "never"
    assert await user.settle(first, 1, 0, 0, 0, 0, 0, 0, 4, 0) == 2  # one more than it held
    assert (await user.refused(searches=2)).cause == "used"
    assert (await user.granted(searches=1)).room == (0, 0)


async def test_a_used_up_limit_on_searches_stops_no_request_without_them(quota: QuotaScripts) -> None:
    over = WindowState((1, 0, 0, 0, 0, 0, 0, 9, 0))
    user = await quota_user(quota, Limit(Meter.WEB_SEARCHES, DAY, 5), used=over)
    assert (await user.refused(searches=1)).cause == "used"
    assert (await user.granted(searches=0)).request.held_output_tokens == 100


async def test_output_and_spend_bound_the_answer(quota: QuotaScripts) -> None:
    user = await quota_user(quota, Limit(Meter.OUTPUT, DAY, 70), Limit(Meter.SPEND, DAY, 1))
    held = await user.granted(prompt=50)  # 1,000 nano-USD less 50 * 6 for the prompt: 46 tokens at 15
    assert (held.request.held_output_tokens, held.room) == (46, (24, 10))
    assert (await user.windows("d:2026-11-22"))[0] == WindowState((0,) * 9, (1, 50, 46, 0, 990))


async def test_numbers_at_the_end_of_the_exact_ones(quota: QuotaScripts) -> None:
    bound = MAX_LIMIT * 1_000
    assert bound > 2**53 - 1_000
    used = WindowState((1, 0, 0, 0, 0, 0, 0, 0, bound - 12_347))
    user = await quota_user(quota, Limit(Meter.SPEND, PERIOD, MAX_LIMIT), used=used)
    held = await user.granted(prompt=0, asked=10_000)
    assert (held.request.held_output_tokens, held.room) == (823, (2,))
    assert (await user.windows("p:2026-11"))[0].held == (1, 0, 823, 0, 12_345)
    await user.settle(held, 1, 0, 823, 0, 0, 0, 0, 0, 12_346)
    assert (await user.windows("p:2026-11"))[0] == WindowState((2, 0, 823, 0, 0, 0, 0, 0, bound - 1))
    assert (await user.refused(asked=1)).cause == "used"


async def test_a_settlement_after_the_window_rolled_touches_only_what_still_exists(quota: QuotaScripts) -> None:
    user = await quota_user(quota, used=WindowState((1,) * 9, (1, 40, 50, 3, 600)))
    request, old_minute = uuid7(), int(user.minute[2:]) - 7
    hold = Hold(40, 50, 3, 600, 0, old_minute, "2026-11-21", "2026-11", user.user)  # yesterday, in this period
    keys = tenant_key(user.tenant), user_key(user.tenant, user.user)
    for key in keys:
        await quota.pipeline.command("HSET", key, f"h:{request.hex}", hold.pack(), "c", 1)
    assert await quota.settle(user.tenant, user.user, request, (1, 2, 3, 4, 5, 6, 7, 8, 9)) == 2
    untouched = WindowState((1,) * 9, (1, 40, 50, 3, 600))
    period = WindowState((2, 3, 4, 5, 6, 7, 8, 9, 10))
    assert await user.windows("d:2026-11-22", "p:2026-11") == (untouched, period)
    for key in keys:
        names = {name.decode() for name in await quota.pipeline.command("HKEYS", key)}
        assert not {f"m:{old_minute}", "d:2026-11-21", f"h:{request.hex}"} & names
        assert await quota.pipeline.command("HGET", key, "c") == b"0"


async def test_windows_that_are_over_are_dropped_by_the_next_grant(quota: QuotaScripts) -> None:
    user = await quota_user(quota, used=WindowState((1,) * 9))
    keys = tenant_key(user.tenant), user_key(user.tenant, user.user)
    for key in keys:
        await quota.pipeline.command("HSET", key, "k", "m:1 d:2026-11-21 p:2026-11", "m:1", b"x", "d:2026-11-21", b"x")
    held = await user.granted()
    current = {f"m:{held.request.opened_ms // 60_000}", "d:2026-11-22", "p:2026-11"}
    for key in keys:
        names = {name.decode() for name in await quota.pipeline.command("HKEYS", key)}
        assert {name for name in names if name[:2] in ("m:", "d:", "p:")} == current
    assert await quota.pipeline.command("TTL", keys[1]) > 40 * 86_400


async def test_a_query_with_another_day_is_retried_with_the_right_one(quota: QuotaScripts) -> None:
    user = await quota_user(quota)
    starts = user.day.starts_ms
    for before, after in ((1, HOUR_MS), (2 * HOUR_MS, 3 * HOUR_MS)):  # yesterday, tomorrow
        user.day = Window(DAY, "another", starts + before, starts + after)
        answer = await user.ask()
        assert isinstance(answer, Retry)
        assert answer.now_ms is not None
        assert starts + HOUR_MS <= answer.now_ms < starts + 2 * HOUR_MS
    user.day = Window(DAY, "2026-11-22", starts, starts + 2 * HOUR_MS)
    await user.granted()


async def test_a_hold_past_its_deadline_is_reported_by_the_next_answer(quota: QuotaScripts) -> None:
    user = await quota_user(quota, concurrency=5)
    first = await user.granted()
    for key in (tenant_key(user.tenant), user_key(user.tenant, user.user)):
        assert await quota.pipeline.command("HGET", key, "x") == str(first.request.opened_ms + 60_000).encode()
        await quota.pipeline.command("HSET", key, "x", await quota.now_ms() - 4_000)
        assert not (await user.granted()).holds_expired  # a settlement may come a moment after the deadline
        await quota.pipeline.command("HSET", key, "x", await quota.now_ms() - 5_001)
        assert (await user.granted()).holds_expired
        assert await quota.expired_holds(key, 1) == []  # none has really expired, so x is corrected
        assert await quota.pipeline.command("HGET", key, "x") == str(first.request.opened_ms + 60_000).encode()
    await quota.pipeline.command("HSET", key, "x", 1)
    assert (await user.refused()).holds_expired
