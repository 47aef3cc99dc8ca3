"""Access by a table of subscriptions and debts, and properties for arbitrary facts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.access.cycles import IST, CycleFacts, cycle_end, cycle_name
from billing.access.lifecycle import (
    GRACE_MS,
    KEPT_MS,
    UNKNOWN_GRACE_MS,
    DebtFacts,
    PinnedPlan,
    PlanFacts,
    SubscriptionFacts,
    Timeline,
    timeline,
)
from billing.models.states import TERMINAL
from core.clock import DAY_MS, to_ms
from metering.quota.limits import Limit, LimitSet, Meter, PlanLimits
from metering.quota.windows import WindowKind
from sandbox.razorpay.calendar import boundary

HOUR_MS = DAY_MS // 24


def at(text: str) -> int:
    """An Indian time."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=IST))


def limits(tokens: int) -> PlanLimits:
    return PlanLimits(tenant=LimitSet((Limit(Meter.TOKENS, WindowKind.PERIOD, tokens),)))


FREE = PlanFacts("free@1", limits(10), limits(10), "block")
TEAM = PlanFacts("team@1", limits(1000), limits(100), "block")
PAID_TO = at("2027-02-05")
CYCLE = CycleFacts("2027-01-05-abcdef", at("2027-01-05"), PAID_TO)
NEXT_END = at("2027-03-05")
PAID = SubscriptionFacts(
    id="s1",
    suffix="abcdef",
    plan=TEAM,
    status="active",
    authorised_ms=at("2027-01-05"),
    start_ms=at("2027-01-05"),
    current_start_ms=CYCLE.starts_ms,
    current_end_ms=CYCLE.ends_ms,
    paid_through_ms=PAID_TO,
    remaining_count=10,
    cycles=(CYCLE,),
)
"""A subscription paid to February 5."""

ENDINGS: dict[str, dict[str, Any]] = {
    "-": {},
    "at its end": {"cancel_at_ms": PAID_TO},
    "a cycle later": {"cancel_at_ms": NEXT_END},
    "last cycle": {"remaining_count": 0},
    "last, unpaid": {"remaining_count": 0, "current_start_ms": PAID_TO, "current_end_ms": NEXT_END},
    "ended": {"ended_ms": PAID_TO - 10 * DAY_MS},
}
WORDS = {"payment_required": "402 fee", "bill_overdue": "402 bill", "subscription_required": "402 none"}

# Access at offsets from the end of the paid time. `when unpaid`: the plan's; `due`: a usage bill's due time.
TABLE = """
status    | method  | ending        | when unpaid | own  | due  | -1h      | +1h      | +95h     | +97h     | +119h    | +121h    | +191h    | +193h    | +40d
active    | card    | -             | block       | free |      | team     | team     | team     | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee
pending   | card    | -             | block       | free |      | team     | team     | team     | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee
halted    | card    | -             | block       | free |      | team     | team     | team     | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee
pending   | upi     | -             | block       | free |      | team     | team     | team     | team     | team     | 402 fee  | 402 fee  | 402 fee  | 402 fee
pending   | emandate| -             | block       | free |      | team     | team     | team     | team     | team     | team     | team     | 402 fee  | 402 fee
pending   | -       | -             | block       | free |      | team     | team     | team     | team     | team     | 402 fee  | 402 fee  | 402 fee  | 402 fee
pending   | card    | -             | free        | free |      | team     | team     | team     | free     | free     | free     | free     | free     | free
pending   | card    | -             | free        | -    |      | team     | team     | team     | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee
active    | card    | at its end    | block       | free |      | team     | free     | free     | free     | free     | free     | free     | free     | free
active    | card    | at its end    | block       | -    |      | team     | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none
pending   | card    | a cycle later | block       | free |      | team     | team     | team     | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee  | free
halted    | upi     | at its end    | block       | free |      | team     | free     | free     | free     | free     | free     | free     | free     | free
active    | card    | last cycle    | block       | free |      | team     | free     | free     | free     | free     | free     | free     | free     | free
pending   | card    | last, unpaid  | block       | free |      | team     | team     | team     | 402 fee  | 402 fee  | 402 fee  | 402 fee  | 402 fee  | free
completed | card    | last cycle    | block       | free |      | team     | free     | free     | free     | free     | free     | free     | free     | free
cancelled | card    | ended         | block       | free |      | team     | free     | free     | free     | free     | free     | free     | free     | free
cancelled | upi     | ended         | block       | -    |      | team     | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none
expired   | card    | ended         | block       | free |      | team     | free     | free     | free     | free     | free     | free     | free     | free
paused    | card    | -             | block       | free |      | team     | free     | free     | free     | free     | free     | free     | free     | free
paused    | card    | -             | block       | -    |      | team     | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none | 402 none
active    | card    | -             | block       | free | -2h  | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill
active    | card    | -             | block       | free | +2h  | team     | team     | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill
active    | card    | -             | free        | free | +2h  | team     | team     | free     | free     | free     | free     | free     | free     | free
active    | card    | -             | free        | -    | +2h  | team     | team     | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill
cancelled | card    | ended         | block       | free | +96h | team     | free     | free     | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill
cancelled | card    | ended         | free        | free | +96h | team     | free     | free     | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill
paused    | upi     | -             | free        | free | +2h  | team     | free     | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill | 402 bill
"""  # noqa: E501 - a table is read across


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


HEAD, *ROWS = (_cells(line) for line in TABLE.strip().splitlines())


def offset_ms(text: str) -> int:
    return int(text[:-1]) * (DAY_MS if text.endswith("d") else HOUR_MS)


def word(found: Timeline, at_ms: int) -> str:
    """The access at a time: the plan's code, or the refusal."""
    segment = found.segment(at_ms)
    if segment.refusal is not None:
        assert segment.limits == PlanLimits()
        return WORDS[segment.refusal.code]
    return "unlimited" if segment.plan_version is None else segment.plan_version.split("@")[0]


@pytest.mark.parametrize("row", ROWS, ids=[" ".join(row[:6]) for row in ROWS])
def test_what_holds_is_what_is_paid_and_a_grace_for_what_should_go_on(row: list[str]) -> None:
    status, method, ending, when_unpaid, own, due, *expected = row
    plan = replace(TEAM, when_unpaid="free" if when_unpaid == "free" else "block")
    one = replace(PAID, status=status, method=None if method == "-" else method, plan=plan)
    one = replace(one, **ENDINGS[ending])
    debts = [DebtFacts(PAID_TO + offset_ms(due))] if due else []
    found = timeline(FREE if own == "free" else None, [one], debts, PAID_TO - DAY_MS)
    moments = [PAID_TO + offset_ms(text) for text in HEAD[6:]]
    assert [word(found, moment) for moment in moments] == expected


def test_a_tenant_without_anything_is_not_limited() -> None:
    found = timeline(None, [], [], PAID_TO)
    assert word(found, PAID_TO) == "unlimited"
    assert found.planned == ()
    assert len(found.segments) == 1


def test_an_own_plan_holds_for_ever() -> None:
    found = timeline(FREE, [], [], PAID_TO)
    assert [(segment.from_ms, segment.plan_version) for segment in found.segments] == [(0, "free@1")]
    assert found.planned == ()


@pytest.mark.parametrize("own", [None, FREE])
def test_an_overdue_bill_of_a_tenant_without_a_subscription_refuses(own: PlanFacts | None) -> None:
    found = timeline(own, [], [DebtFacts(PAID_TO + 5), DebtFacts(PAID_TO)], PAID_TO - DAY_MS)
    assert word(found, PAID_TO - 1) == ("unlimited" if own is None else "free")
    assert word(found, PAID_TO) == "402 bill"


def test_an_own_plan_that_bears_a_debt_goes_on() -> None:
    found = timeline(replace(FREE, when_unpaid="free"), [], [DebtFacts(PAID_TO)], PAID_TO)
    assert word(found, PAID_TO) == "free"


# --------------------------------------------------------------------------------------------- before the first payment

TRIAL_FROM, TRIAL_TO = at("2027-01-10T15:00"), at("2027-01-24T15:00")
TRIAL = SubscriptionFacts(
    id="s1",
    suffix="abcdef",
    plan=TEAM,
    status="authenticated",
    method="card",
    authorised_ms=TRIAL_FROM,
    starts_later=True,
    start_ms=TRIAL_TO,
    remaining_count=12,
)


def test_nothing_is_given_before_it_is_authorised_and_while_the_bank_has_to_confirm() -> None:
    made = replace(TRIAL, status="created", authorised_ms=None)
    waiting = replace(TRIAL, status="created", method="emandate")
    for one in (made, waiting, replace(made, status="expired")):
        assert timeline(FREE, [one], [], TRIAL_FROM) == timeline(FREE, [], [], TRIAL_FROM)


def test_a_trial_stops_at_the_allowance_and_is_a_period_of_its_own() -> None:
    found = timeline(FREE, [TRIAL], [], TRIAL_FROM)
    segment = found.segment(TRIAL_FROM)
    assert (segment.from_ms, segment.plan_version, segment.limits) == (TRIAL_FROM, "team@1", TEAM.blocking)
    trial, first, second = (found.planned[index] for index in range(3))
    assert (trial.name, trial.kind) == ("2027-01-10-trial-abcdef", "trial")
    assert (trial.starts_ms, trial.ends_ms) == (TRIAL_FROM, TRIAL_TO)
    assert (first.name, first.kind, first.foreseen) == ("2027-01-24-abcdef", "cycle", True)
    assert (first.starts_ms, first.ends_ms) == (TRIAL_TO, at("2027-02-24"))
    assert (second.starts_ms, second.ends_ms) == (at("2027-02-24"), at("2027-03-24"))


def test_after_a_trial_the_first_charge_has_its_grace_but_nothing_is_lent_past_the_allowance() -> None:
    found = timeline(FREE, [TRIAL], [], TRIAL_FROM)
    grace_ends_ms = TRIAL_TO + GRACE_MS["card"]
    segment = found.segment(grace_ends_ms - 1)
    assert segment.limits == TEAM.blocking
    assert word(found, grace_ends_ms) == "402 fee"
    paid = replace(TRIAL, status="active", paid_through_ms=at("2027-02-24"))
    segment = timeline(FREE, [paid], [], TRIAL_TO).segment(TRIAL_TO + 1)
    assert segment.limits == TEAM.limits


def test_a_trial_that_is_cancelled_lasts_as_long_as_was_said() -> None:
    at_its_end = replace(TRIAL, status="cancelled", cancel_at_ms=TRIAL_TO, ended_ms=TRIAL_TO - 2 * DAY_MS)
    found = timeline(FREE, [at_its_end], [], TRIAL_TO - DAY_MS)
    assert [word(found, moment) for moment in (TRIAL_TO - 1, TRIAL_TO)] == ["team", "free"]
    assert [period.kind for period in found.planned] == ["trial"]
    now = replace(TRIAL, status="cancelled", cancel_at_ms=TRIAL_FROM + DAY_MS, ended_ms=TRIAL_FROM + DAY_MS + 5)
    assert word(timeline(FREE, [now], [], TRIAL_FROM + DAY_MS), TRIAL_FROM + DAY_MS) == "free"


def test_a_tenant_has_one_trial_and_a_paid_month_beats_it() -> None:
    later = replace(
        TRIAL,
        id="s2",
        suffix="zzzzzz",
        authorised_ms=PAID_TO - 9 * DAY_MS,
        start_ms=PAID_TO,
        plan=replace(TEAM, version="b@1"),
    )
    old = replace(PAID, status="cancelled", ended_ms=PAID_TO - 10 * DAY_MS)
    found = timeline(FREE, [old, later], [], PAID_TO - DAY_MS)
    assert "trial" not in {period.kind for period in found.planned}
    much_later = replace(later, authorised_ms=PAID_TO + 9 * DAY_MS, start_ms=PAID_TO + 20 * DAY_MS)
    waiting = timeline(FREE, [old, much_later], [], PAID_TO + 10 * DAY_MS)
    assert [period.kind for period in waiting.planned][:2] == ["cycle", "cycle"]
    assert word(waiting, PAID_TO + 15 * DAY_MS) == "free"
    assert [word(found, moment) for moment in (PAID_TO - 1, PAID_TO)] == ["team", "b"]


def test_a_change_of_plan_goes_over_without_a_gap() -> None:
    old = replace(PAID, cancel_at_ms=PAID_TO)
    new = replace(
        PAID,
        id="s2",
        suffix="zzzzzz",
        plan=replace(TEAM, version="big@1"),
        status="authenticated",
        authorised_ms=PAID_TO - 5 * DAY_MS,
        starts_later=True,
        replaces=True,
        start_ms=PAID_TO,
        current_start_ms=None,
        current_end_ms=None,
        paid_through_ms=None,
        cycles=(),
    )
    found = timeline(FREE, [old, new], [], PAID_TO - DAY_MS)
    assert [word(found, moment) for moment in (PAID_TO - 1, PAID_TO, PAID_TO + 3 * DAY_MS)] == ["team", "big", "big"]
    assert [(period.name, period.starts_ms) for period in found.planned][:2] == [
        ("2027-01-05-abcdef", CYCLE.starts_ms),
        ("2027-02-05-zzzzzz", PAID_TO),
    ]
    not_authorised = replace(new, status="expired", authorised_ms=None)
    kept = timeline(FREE, [PAID, not_authorised], [], PAID_TO - DAY_MS)
    assert kept == timeline(FREE, [PAID], [], PAID_TO - DAY_MS)


def test_a_segment_gives_what_its_row_says_until_it_ends() -> None:
    older = PlanFacts("team@2", limits(777), limits(7), "block")
    one = replace(PAID, pinned=(PinnedPlan(CYCLE.starts_ms, PAID_TO, older),))
    found = timeline(FREE, [one], [], CYCLE.starts_ms)
    at_end = [found.segment(moment) for moment in (PAID_TO - 1, PAID_TO)]
    assert [(each.plan_version, each.limits) for each in at_end] == [
        ("team@2", limits(777)),
        ("team@1", TEAM.limits),
    ]


def test_a_month_keeps_the_plan_of_its_segment() -> None:
    older = PlanFacts("free@0", limits(5), limits(5), "block")
    cut_ms = PAID_TO + DAY_MS
    found = timeline(FREE, [], [], PAID_TO, pinned_months=[PinnedPlan(PAID_TO, cut_ms, older)])
    assert [found.segment(moment).plan_version for moment in (cut_ms - 1, cut_ms)] == ["free@0", "free@1"]


# -------------------------------------------------------------------------------------------------------------- periods


@pytest.mark.parametrize("status", ["active", "pending", "halted"])
def test_cycles_go_on_while_money_may_come(status: str) -> None:
    found = timeline(FREE, [replace(PAID, status=status)], [], PAID_TO - DAY_MS)
    assert [(period.name, period.foreseen) for period in found.planned] == [
        ("2027-01-05-abcdef", False),
        ("2027-02-05-abcdef", True),
        ("2027-03-05-abcdef", True),
    ]
    assert found.planned[-1].ends_ms == at("2027-04-05")


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({"status": "paused"}, [PAID_TO]),
        ({"status": "cancelled", "ended_ms": PAID_TO - DAY_MS}, [PAID_TO]),
        ({"status": "cancelled", "ended_ms": PAID_TO - DAY_MS, "paid_through_ms": None}, [PAID_TO - DAY_MS]),
        ({"remaining_count": 0}, [PAID_TO]),
        ({"remaining_count": 1}, [PAID_TO, NEXT_END]),
        ({"cancel_at_ms": PAID_TO}, [PAID_TO]),
        ({"cancel_at_ms": PAID_TO - DAY_MS}, [PAID_TO]),
        ({"cancel_at_ms": NEXT_END}, [PAID_TO, NEXT_END]),
    ],
)
def test_cycles_end_with_the_subscription_but_paid_time_is_served(changes: dict[str, Any], ends: list[int]) -> None:
    found = timeline(FREE, [replace(PAID, **changes)], [], PAID_TO - 2 * DAY_MS)
    assert [period.ends_ms for period in found.planned] == ends


def test_the_day_of_the_month_comes_back_after_a_short_month() -> None:
    started_ms, said_ms = at("2027-01-31T10:00"), at("2027-02-28")
    one = replace(
        PAID,
        start_ms=started_ms,
        current_start_ms=started_ms,
        current_end_ms=said_ms,
        paid_through_ms=said_ms,
        cycles=(CycleFacts("2027-01-31-abcdef", started_ms, said_ms),),
    )
    found = timeline(FREE, [one], [], started_ms)
    assert [period.ends_ms for period in found.planned] == [said_ms, at("2027-03-31"), at("2027-04-30")]


def test_from_a_newer_subscription_on_it_alone_is_metered() -> None:
    begins_ms = PAID_TO + 10 * DAY_MS
    old = replace(PAID, status="halted")
    new = replace(
        PAID, id="s2", suffix="zzzzzz", authorised_ms=begins_ms, start_ms=begins_ms, current_start_ms=None, cycles=()
    )
    found = timeline(FREE, [old, new], [], begins_ms)
    assert [(period.name[-6:], period.ends_ms) for period in found.planned][:3] == [
        ("abcdef", PAID_TO),
        ("abcdef", begins_ms),
        ("zzzzzz", at("2027-03-15")),
    ]


def test_a_cycle_that_began_before_its_trial_was_over_follows_it() -> None:
    early = CycleFacts("2027-01-20-abcdef", TRIAL_TO - 4 * DAY_MS, at("2027-02-20"))
    found = timeline(FREE, [replace(TRIAL, status="active", cycles=(early,))], [], TRIAL_TO)
    assert found.planned[0].ends_ms == found.planned[1].starts_ms


def test_after_a_long_silence_the_present_cycle_and_two_more_are_foreseen() -> None:
    found = timeline(FREE, [PAID], [], at("2027-06-20"))
    assert [period.name for period in found.planned][-3:] == [f"2027-0{month}-05-abcdef" for month in (6, 7, 8)]


def test_a_cycle_that_razorpay_is_in_counts_before_its_invoice_is_seen() -> None:
    said_ms = NEXT_END + 2 * DAY_MS
    moved = replace(PAID, status="pending", current_start_ms=PAID_TO, current_end_ms=said_ms)
    found = timeline(FREE, [moved], [], PAID_TO)
    assert [(period.starts_ms, period.ends_ms, period.foreseen) for period in found.planned][:2] == [
        (CYCLE.starts_ms, PAID_TO, False),
        (PAID_TO, said_ms, True),
    ]


@given(st.integers(at("2026-01-01") // 1000, at("2029-12-31") // 1000), st.integers(1, 40))
def test_cycles_end_where_razorpay_ends_them(anchor_s: int, cycles: int) -> None:
    moment = anchor_s * 1000
    day = datetime.fromtimestamp(anchor_s, IST).day
    for count in range(1, cycles + 1):
        moment = cycle_end(moment, day)
        assert moment == boundary(anchor_s, count, "monthly", 1) * 1000


# ------------------------------------------------------------------------------------------------------------ any facts

ORIGIN = at("2026-11-01")
DAYS = st.integers(0, 400).map(lambda day: ORIGIN + day * DAY_MS + 7 * HOUR_MS)
STATUSES = ("created", "authenticated", "active", "pending", "halted", "paused", "cancelled", "completed", "expired")


@st.composite
def subscriptions(draw: st.DrawFn) -> tuple[SubscriptionFacts, ...]:
    """Arbitrary facts: consecutive cycles, the first ones paid."""
    return tuple(draw(_subscription(index)) for index in range(draw(st.integers(0, 4))))


@st.composite
def _subscription(draw: st.DrawFn, index: int) -> SubscriptionFacts:
    authorised_ms, starts_later, status = draw(DAYS), draw(st.booleans()), draw(st.sampled_from(STATUSES))
    start_ms = authorised_ms + (draw(st.integers(1, 40)) * DAY_MS if starts_later else 0)
    mark = f"mark-{index}"
    cycles: list[CycleFacts] = []
    for _ in range(draw(st.integers(0, 5))):
        begins = cycles[-1].ends_ms if cycles else start_ms
        ends = cycle_end(begins, datetime.fromtimestamp(start_ms // 1000, IST).day)
        cycles.append(CycleFacts(cycle_name(begins, mark), begins, ends))
    paid = draw(st.integers(0, len(cycles)))
    return SubscriptionFacts(
        id=f"s{index}",
        suffix=mark,
        plan=PlanFacts(f"p{index}@1", limits(1000), limits(100), draw(st.sampled_from(("block", "free")))),
        status=status,
        method=draw(st.sampled_from((None, "card", "upi", "emandate", "wallet"))),
        authorised_ms=None if status == "created" else authorised_ms,
        starts_later=starts_later,
        replaces=draw(st.booleans()),
        start_ms=start_ms,
        current_start_ms=cycles[-1].starts_ms if cycles else None,
        current_end_ms=cycles[-1].ends_ms if cycles else None,
        paid_through_ms=cycles[paid - 1].ends_ms if paid else None,
        remaining_count=draw(st.sampled_from((None, 0, 1, 2, 9))),
        cancel_at_ms=draw(st.none() | DAYS),
        ended_ms=draw(DAYS) if status in TERMINAL else None,
        cycles=tuple(cycles),
    )


OWN = st.sampled_from((None, FREE, replace(FREE, when_unpaid="free")))
DEBTS = st.lists(DAYS.map(DebtFacts), max_size=3)
LATER = st.integers(0, 3 * 24 * 60).map(lambda minutes: minutes * 60_000)


def moments_of(found: Timeline, after_ms: int) -> list[int]:
    """Times of possible change, and right before them."""
    edges = {segment.from_ms for segment in found.segments} | {period.ends_ms for period in found.planned}
    return sorted(moment for edge in edges for moment in (edge - 1, edge, edge + HOUR_MS) if moment >= after_ms)


@pytest.mark.slow
@given(subscriptions(), OWN, DEBTS, DAYS)
def test_periods_never_overlap_and_have_names_of_their_own(
    facts: Sequence[SubscriptionFacts], own: PlanFacts | None, debts: list[DebtFacts], now_ms: int
) -> None:
    found = timeline(own, facts, debts, now_ms)
    for before, after in pairwise(found.planned):
        assert before.ends_ms <= after.starts_ms
    assert all(period.starts_ms < period.ends_ms for period in found.planned)
    assert len({period.name for period in found.planned}) == len(found.planned)
    assert [segment.from_ms for segment in found.segments] == sorted({segment.from_ms for segment in found.segments})
    assert found.segments[0].from_ms <= now_ms
    assert all(now_ms - KEPT_MS < after.from_ms for after in found.segments[1:])


@pytest.mark.slow
@given(subscriptions(), DAYS)
def test_a_subscription_that_goes_on_has_no_gap_between_its_cycles(
    facts: Sequence[SubscriptionFacts], now_ms: int
) -> None:
    for one in facts:
        cycles = [period for period in timeline(FREE, [one], [], now_ms).planned if period.kind == "cycle"]
        assert all(before.ends_ms == after.starts_ms for before, after in pairwise(cycles))
        if one.is_real and one.status in {"active", "pending", "halted"} and one.remaining_count in {None, 9}:
            ends_ms = min(one.cancel_at_ms or now_ms + 57 * DAY_MS, now_ms + 57 * DAY_MS)
            assert cycles == [] or cycles[-1].ends_ms >= min(ends_ms, cycles[0].starts_ms + 9 * 28 * DAY_MS)


@pytest.mark.slow
@given(subscriptions(), OWN, DEBTS, DAYS)
def test_nothing_is_given_past_what_is_paid_and_the_grace(
    facts: Sequence[SubscriptionFacts], own: PlanFacts | None, debts: list[DebtFacts], now_ms: int
) -> None:
    by_plan = {one.plan.version: one for one in facts}
    found = timeline(own, facts, debts, now_ms)
    for moment in moments_of(found, now_ms):
        segment = found.segment(moment)
        one = by_plan.get(segment.plan_version or "")
        if one is None or segment.refusal is not None:
            continue
        through_ms = one.paid_through_ms or (one.start_ms if one.starts_later else 0) or 0
        graced_ms = through_ms + GRACE_MS.get(one.method or "", UNKNOWN_GRACE_MS)
        assert one.is_real
        assert moment < (through_ms if one.status in TERMINAL else graced_ms)
        if one.paid_through_ms is None:
            assert segment.limits == one.plan.blocking


@pytest.mark.slow
@given(subscriptions(), OWN, DEBTS, DAYS, LATER)
def test_the_same_facts_give_the_same_timeline_and_later_ones_only_its_rest(
    facts: Sequence[SubscriptionFacts], own: PlanFacts | None, debts: list[DebtFacts], now_ms: int, later_ms: int
) -> None:
    found = timeline(own, facts, debts, now_ms)
    assert timeline(own, tuple(reversed(facts)), list(reversed(debts)), now_ms) == found
    afterwards = timeline(own, facts, debts, now_ms + later_ms)
    for moment in moments_of(found, now_ms + later_ms):
        assert word(afterwards, moment) == word(found, moment)
        assert all(one in afterwards.planned for one in found.planned if one.starts_ms <= moment < one.ends_ms)


@pytest.mark.slow
@given(subscriptions(), OWN, DAYS, DAYS)
def test_a_debt_ends_in_a_refusal_or_in_the_own_plan(
    facts: Sequence[SubscriptionFacts], own: PlanFacts | None, due_ms: int, now_ms: int
) -> None:
    found = timeline(own, facts, [DebtFacts(due_ms)], now_ms)
    for moment in moments_of(found, max(due_ms, now_ms)):
        assert word(found, moment) in {"free", *WORDS.values()}
        assert own is not None or word(found, moment) in WORDS.values()
