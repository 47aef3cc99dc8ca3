"""The words of the quota, one by one: grants cut at the limit, refusals and their reasons, classes, large numbers."""

from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from core.ids import uuid7
from metering.admission.redis_scripts import OtherTime, Outdated, QuotaScripts, Stale, tenant_key, user_key
from metering.quota.counters import Hold, WindowState
from metering.quota.limits import MAX_LIMIT, Limit, LimitSet, Meter, PlanLimits, resolve
from metering.quota.query import QuotaQuery, Refused, Reservation
from metering.quota.windows import Window, WindowKind, minute_window

MINUTE, DAY, PERIOD = WindowKind.MINUTE, WindowKind.DAY, WindowKind.PERIOD
HOUR_MS = 3_600_000
RATE = 15
PROMPT_RATE = 6
INPUT_CLASSES = (Meter.INPUT, Meter.CACHE_READ, Meter.CACHE_WRITE_5M, Meter.CACHE_WRITE_1H, Meter.CACHE_WRITE)


@dataclass
class LedgerDesk:
    """One user of one tenant, built and empty but for `used`, with limits of its own."""

    quota: QuotaScripts
    user_limits: LimitSet
    tenant_limits: LimitSet
    tenant: UUID
    user: UUID
    day: Window
    period: Window
    minute: str

    async def ask(
        self, *, prompt: int = 0, asked: int = 100, smallest: int = 10, likely: int | None = None
    ) -> Reservation | Refused | Stale | Outdated | OtherTime:
        """One question."""
        likely = prompt if likely is None else likely
        entitlement = resolve(PlanLimits(), user=self.user_limits, tenant=self.tenant_limits, plan_version=None)
        return await self.quota.admit(
            QuotaQuery(
                tenant_id=self.tenant,
                user_id=self.user,
                day=self.day,
                period=self.period,
                prompt_bound=prompt,
                prompt_nano_usd=prompt * PROMPT_RATE,
                prompt_likely=likely,
                likely_nano_usd=likely * PROMPT_RATE,
                asked_output=asked,
                smallest_output=smallest,
                output_rate=RATE,
                ttl_ms=60_000,
                from_ms=max(self.day.starts_ms, self.period.starts_ms),
                until_ms=min(self.day.ends_ms, self.period.ends_ms),
                read_epoch=1,
            ),
            entitlement,
        )

    async def granted(self, **question: int) -> Reservation:
        """A question that is granted."""
        answer = await self.ask(**question)
        assert isinstance(answer, Reservation), answer
        return answer

    async def refused(self, **question: int) -> Refused:
        """A question that is refused."""
        answer = await self.ask(**question)
        assert isinstance(answer, Refused), answer
        return answer

    async def settle(self, held: Reservation, *counts: int) -> int:
        """Settles with seven counts."""
        return await self.quota.settle(self.tenant, self.user, held.id, counts)

    async def windows(self, *names: str) -> tuple[WindowState, ...]:
        """The user's windows."""
        answer = await self.quota.read(self.tenant, self.user, names)
        assert isinstance(answer, tuple)
        return answer[0].windows


async def open_ledger(
    quota: QuotaScripts,
    *limits: Limit,
    tenant: LimitSet | None = None,
    concurrency: int | None = None,
    used: WindowState | None = None,
) -> LedgerDesk:
    """A desk whose day and period stand at `used`."""
    now = await quota.now_ms()
    ledger = LedgerDesk(
        quota,
        LimitSet(limits, concurrency),
        tenant or LimitSet(),
        uuid4(),
        uuid4(),
        Window(DAY, "2026-11-22", now - HOUR_MS, now + HOUR_MS),
        Window(PERIOD, "2026-11", now - HOUR_MS, now + 2 * HOUR_MS),
        f"m:{minute_window(now).name}",
    )
    run = await quota.lane.connect()
    fields = {"d:2026-11-22": used.pack(), "p:2026-11": used.pack()} if used else {}
    assert await quota.build_tenant(ledger.tenant, 1, run, fields)
    assert await quota.build_user(ledger.tenant, ledger.user, 1, run, fields)
    return ledger


async def test_the_last_answer_is_cut_at_the_limit(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota, Limit(Meter.TOKENS, DAY, 300))
    first = await ledger.granted(prompt=100, asked=500)
    assert (first.granted_output, first.room) == (200, (0,))
    await ledger.settle(first, 1, 90, 120, 0, 0, 0, 0)
    second = await ledger.granted(prompt=60, asked=500)
    assert (second.granted_output, second.room) == (30, (0,))
    await ledger.settle(second, 1, 60, 20, 0, 0, 0, 0)
    assert (await ledger.granted(prompt=0, asked=500)).granted_output == 10  # the smallest grant, and the last


async def test_too_little_left_says_used_and_when_the_window_turns(quota: QuotaScripts) -> None:
    ledger = await open_ledger(
        quota,
        Limit(Meter.TOKENS, DAY, 109),
        Limit(Meter.TOKENS, PERIOD, 109),
        used=WindowState((1, 100, 0, 0, 0, 0, 0)),
    )
    refused = await ledger.refused(asked=100)
    assert (refused.cause, refused.limit, refused.ends_ms) == ("used", 1, ledger.period.ends_ms)  # the later of the two
    assert (await ledger.granted(asked=9)).granted_output == 9  # who asks for less than the smallest may have less


async def test_what_others_hold_is_another_reason_than_what_is_used(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota, Limit(Meter.TOKENS, DAY, 1_000))
    first = await ledger.granted(asked=600)
    refused = await ledger.refused(asked=1_000)
    assert (refused.cause, refused.limit, refused.ends_ms - refused.now_ms) == ("held", 0, 1_000)
    assert (await ledger.granted(asked=800)).granted_output == 400  # half of what it could have: not less
    await ledger.settle(first, 1, 0, 50, 0, 0, 0, 0)
    assert (await ledger.granted(asked=1_000)).granted_output == 550


async def test_what_can_never_fit_is_said_to_be_so(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota, Limit(Meter.TOKENS, DAY, 100), used=WindowState((1, 100, 0, 0, 0, 0, 0)))
    assert (await ledger.refused(prompt=91)).cause == "never"
    assert (await ledger.refused(prompt=90)).cause == "used"


async def test_a_count_is_worth_it_only_where_the_likely_size_would_be_granted(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota, Limit(Meter.TOKENS, DAY, 100))
    assert (await ledger.refused(prompt=91, likely=90)).worth_counting
    assert not (await ledger.refused(prompt=92, likely=91)).worth_counting


@pytest.mark.parametrize(("of_user", "most"), [(True, 1), (False, 1), (True, 0), (False, 0)])
async def test_requests_at_a_time(quota: QuotaScripts, *, of_user: bool, most: int) -> None:
    if of_user:
        ledger = await open_ledger(quota, concurrency=most)
    else:
        ledger = await open_ledger(quota, tenant=LimitSet(concurrency=most))
    running = [await ledger.granted() for _ in range(most)]
    refused = await ledger.refused()
    assert (refused.cause, refused.limit, refused.of_user) == ("held" if most else "never", None, of_user)
    for held in running:
        await ledger.settle(held, *[0] * 7)
        await ledger.granted()


@pytest.mark.parametrize("meter", INPUT_CLASSES)
async def test_a_prompt_is_held_whole_in_every_class_and_settled_in_its_own(quota: QuotaScripts, meter: Meter) -> None:
    ledger = await open_ledger(quota, Limit(meter, DAY, 100))
    first = await ledger.granted(prompt=60)
    assert (first.granted_output, first.room) == (100, (40,))
    assert (await ledger.refused(prompt=41)).cause == "held"
    assert await ledger.settle(first, 1, 1, 2, 3, 4, 5, 6) == 2
    left = 100 - {Meter.INPUT: 1, Meter.CACHE_READ: 3, Meter.CACHE_WRITE_5M: 4, Meter.CACHE_WRITE_1H: 5}.get(meter, 9)
    assert (await ledger.refused(prompt=left + 1)).cause == "used"
    assert (await ledger.granted(prompt=left)).room == (0,)


async def test_output_and_spend_bound_the_answer(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota, Limit(Meter.OUTPUT, DAY, 70), Limit(Meter.SPEND, DAY, 1))
    held = await ledger.granted(prompt=50)  # 1,000 nano-USD less 50 * 6 for the prompt: 46 tokens at 15
    assert (held.granted_output, held.room) == (46, (24, 10))
    assert (await ledger.windows("d:2026-11-22"))[0] == WindowState((0,) * 7, (1, 50, 46, 990))


async def test_numbers_at_the_end_of_the_exact_ones(quota: QuotaScripts) -> None:
    bound = MAX_LIMIT * 1_000
    assert bound > 2**53 - 1_000
    used = WindowState((1, 0, 0, 0, 0, 0, bound - 12_347))
    ledger = await open_ledger(quota, Limit(Meter.SPEND, PERIOD, MAX_LIMIT), used=used)
    held = await ledger.granted(prompt=0, asked=10_000)
    assert (held.granted_output, held.room) == (823, (2,))
    assert (await ledger.windows("p:2026-11"))[0].held == (1, 0, 823, 12_345)
    await ledger.settle(held, 1, 0, 823, 0, 0, 0, 12_346)
    assert (await ledger.windows("p:2026-11"))[0] == WindowState((2, 0, 823, 0, 0, 0, bound - 1), (0, 0, 0, 0))
    assert (await ledger.refused(asked=1)).cause == "used"


async def test_a_settlement_after_the_window_rolled_touches_only_what_still_exists(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota, used=WindowState((1, 1, 1, 1, 1, 1, 1), (1, 40, 50, 600)))
    request, old_minute = uuid7(), int(ledger.minute[2:]) - 7
    hold = Hold(40, 50, 600, 0, old_minute, "2026-11-21", "2026-11", ledger.user)  # yesterday, in this period
    keys = tenant_key(ledger.tenant), user_key(ledger.tenant, ledger.user)
    for key in keys:
        await quota.lane.command("HSET", key, f"h:{request.hex}", hold.pack(), "c", 1)
    assert await quota.settle(ledger.tenant, ledger.user, request, (1, 2, 3, 4, 5, 6, 7)) == 2
    untouched = WindowState((1,) * 7, (1, 40, 50, 600))
    period = WindowState((2, 3, 4, 5, 6, 7, 8), (0, 0, 0, 0))
    assert await ledger.windows("d:2026-11-22", "p:2026-11") == (untouched, period)
    for key in keys:
        names = {name.decode() for name in await quota.lane.command("HKEYS", key)}
        assert not {f"m:{old_minute}", "d:2026-11-21", f"h:{request.hex}"} & names
        assert await quota.lane.command("HGET", key, "c") == b"0"


async def test_windows_that_are_over_are_dropped_by_the_next_grant(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota, used=WindowState((1,) * 7))
    keys = tenant_key(ledger.tenant), user_key(ledger.tenant, ledger.user)
    for key in keys:
        await quota.lane.command("HSET", key, "k", "m:1 d:2026-11-21 p:2026-11", "m:1", b"x", "d:2026-11-21", b"x")
    held = await ledger.granted()
    current = {f"m:{held.now_ms // 60_000}", "d:2026-11-22", "p:2026-11"}
    for key in keys:
        names = {name.decode() for name in await quota.lane.command("HKEYS", key)}
        assert {name for name in names if name[:2] in ("m:", "d:", "p:")} == current
    assert await quota.lane.command("TTL", keys[1]) > 40 * 86_400


async def test_a_question_of_another_day_is_asked_again_with_the_right_one(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota)
    starts = ledger.day.starts_ms
    for before, after in ((1, HOUR_MS), (2 * HOUR_MS, 3 * HOUR_MS)):  # yesterday, tomorrow
        ledger.day = Window(DAY, "another", starts + before, starts + after)
        answer = await ledger.ask()
        assert isinstance(answer, OtherTime)
        assert starts + HOUR_MS <= answer.now_ms < starts + 2 * HOUR_MS
    ledger.day = Window(DAY, "2026-11-22", starts, starts + 2 * HOUR_MS)
    await ledger.granted()


async def test_a_hold_past_its_deadline_is_told_to_the_next_who_asks(quota: QuotaScripts) -> None:
    ledger = await open_ledger(quota, concurrency=5)
    first = await ledger.granted()
    for key in (tenant_key(ledger.tenant), user_key(ledger.tenant, ledger.user)):
        assert await quota.lane.command("HGET", key, "x") == str(first.now_ms + 60_000).encode()
        await quota.lane.command("HSET", key, "x", await quota.now_ms() - 4_000)
        assert not (await ledger.granted()).lapsed  # a settlement may come a moment after the deadline
        await quota.lane.command("HSET", key, "x", await quota.now_ms() - 5_001)
        assert (await ledger.granted()).lapsed
        assert await quota.lapsed(key, 1) == []  # none has really lapsed, which is noted
        assert await quota.lane.command("HGET", key, "x") == str(first.now_ms + 60_000).encode()
    await quota.lane.command("HSET", key, "x", 1)
    assert (await ledger.refused()).lapsed
