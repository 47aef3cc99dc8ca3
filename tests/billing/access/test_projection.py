"""The projected entitlement is a function of billing's rows, and projecting again changes nothing."""

import random
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from billing.catalogue.plans import put_on_plan
from billing.models import Bill, Plan
from core.errors import NotFound
from core.ids import uuid7
from core.postgres.database import Database
from core.tenancy.audit import Actor
from metering.models import EntitlementRow
from metering.quota.limits import PlanLimits
from tests.billing.subscriber import DAY_MS, MARK, ZONE, Subscriber, at, in_force

STEPS = 60


def bounds(limits: PlanLimits) -> set[tuple[str, int]]:
    """The allowances that bound the whole tenant in a period."""
    return {(limit.meter.value, limit.limit) for limit in limits.bounds}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    yield made
    await made.close()


@pytest.fixture
async def acme(database: Database) -> Subscriber:
    return await Subscriber.open(database)


async def test_a_tenant_without_anything_has_no_entitlement_at_all(database: Database) -> None:
    nobody = await Subscriber.open(database, own_plan=None)
    assert not await nobody.project("2026-12-05")
    async with database.session() as session:
        assert await session.get(EntitlementRow, nobody.tenant_id) is None


async def test_an_own_plan_needs_no_schedule(acme: Subscriber) -> None:
    assert await acme.project("2026-12-05")
    row, schedule = await acme.entitlement()
    assert (row.plan_version, schedule.segments, schedule.periods) == ("free@1", (), ())


async def test_projecting_again_changes_nothing(acme: Subscriber) -> None:
    one = await acme.subscribe(authorised_ms=at("2026-12-10"), start_ms=at("2026-12-10"))
    await acme.learn(one, "2026-12-10", "2027-01-10")
    assert await acme.project("2026-12-10T00:01")
    row, _ = await acme.entitlement()
    assert not await acme.project("2026-12-10T00:02")
    again, _ = await acme.entitlement()
    assert again.version == row.version
    assert await acme.project("2026-12-20"), "what ended days ago leaves the schedule"
    assert not await acme.project("2027-01-09")


async def test_the_end_of_a_grace_is_said_beforehand(acme: Subscriber) -> None:
    one = await acme.subscribe(authorised_ms=at("2026-12-10"), start_ms=at("2026-12-10"))
    await acme.learn(one, "2026-12-10", "2027-01-10")
    await acme.project("2026-12-10T00:01")
    assert await acme.holds("2027-01-13T23:59") == "team@1"
    assert await acme.holds("2027-01-14") == "payment_required"
    await acme.learn(one, "2027-01-10", "2027-02-10")
    await acme.project("2027-01-15")
    assert await acme.holds("2027-01-15") == "team@1"


async def test_a_debt_counts_from_its_due_date_until_it_is_paid_or_credited(acme: Subscriber) -> None:
    bill = await acme.owe("2026-12-20")
    await acme.project("2026-12-13")
    assert [await acme.holds(day) for day in ("2026-12-19", "2026-12-20")] == ["free@1", "bill_overdue"]
    async with acme.locked() as session:
        row = await session.get_one(Bill, (acme.tenant_id, bill))
        row.credited_paise, row.paid_paise = 18, 100
    assert await acme.project("2026-12-21")
    assert await acme.holds("2026-12-21") == "free@1"


@pytest.mark.parametrize(
    "fields", [{"state": "held"}, {"state": "void"}, {"kind": "receipt_voucher"}, {"due_ms": None}]
)
async def test_what_nobody_is_asked_for_is_no_debt(acme: Subscriber, fields: dict[str, str]) -> None:
    await acme.owe("2026-12-01", **fields)
    await acme.project("2026-12-13")
    assert await acme.holds("2026-12-14") == "free@1"


async def test_the_earliest_of_several_debts_counts_and_the_plan_says_what_it_leaves(acme: Subscriber) -> None:
    one = await acme.subscribe("grow", authorised_ms=at("2026-12-10"), start_ms=at("2026-12-10"))
    await acme.learn(one, "2026-12-10", "2027-01-10")
    await acme.owe("2026-12-25", seq=2)
    await acme.owe("2026-12-20")
    await acme.project("2026-12-13")
    assert [await acme.holds(day) for day in ("2026-12-19", "2026-12-20")] == ["grow@1", "free@1"]


async def test_a_cycle_bills_early_once_the_plan_that_follows_is_authorised_until_that_is_cancelled(
    acme: Subscriber,
) -> None:
    one = await acme.subscribe(authorised_ms=at("2026-12-10"), start_ms=at("2026-12-10"))
    await acme.learn(one, "2026-12-10", "2027-01-10")
    await acme.project("2026-12-10T00:01")
    wish: dict[str, Any] = {"replaces": one, "wanted_start_ms": at("2027-01-10"), "razorpay_id": "sub_next00"}
    other = await acme.subscribe("grow", status="created", **wish)
    assert not await acme.project("2026-12-10T00:02"), "a wish has no effect"
    await acme.change(other, status="authenticated", authorised_ms=at("2026-12-11"), start_ms=at("2027-01-10"))
    assert await acme.project("2026-12-11")
    _, schedule = await acme.entitlement()
    now = in_force(schedule, "2026-12-11")
    assert now is not None
    assert (now.plan_version, bounds(now.limits)) == ("team@1", set())
    assert now.limits.ceiling is not None

    await acme.change(other, status="cancelled", cancel_at_ms=at("2026-12-12"))
    assert await acme.project("2026-12-12")
    _, schedule = await acme.entitlement()
    last = in_force(schedule, "2026-12-12")
    assert last is not None
    assert ("output_tokens", 1000) in bounds(last.limits)
    cycle = f"2026-12-10-{MARK}"
    cut = [(name, row.terms["past_allowance"]) for name, row in (await acme.periods()).items() if cycle in name]
    assert cut == [(cycle, "block"), (f"{cycle}~2", "bill"), (f"{cycle}~3", "block")]


async def test_an_intent_that_razorpay_does_not_have_counts_for_nothing(acme: Subscriber) -> None:
    await acme.project("2026-12-09")
    begun: dict[str, Any] = {
        "authorised_ms": at("2026-12-01"),
        "start_ms": at("2026-12-01"),
        "paid_through_ms": at("2027-01-01"),
    }
    await acme.subscribe(state="void", **begun)
    assert not await acme.project("2026-12-09T00:01")


async def test_putting_a_tenant_on_a_plan_projects_it(database: Database) -> None:
    acme = await Subscriber.open(database, own_plan=None)
    async with database.session() as session:
        grow = await session.get_one(Plan, ("grow", 1))
        await put_on_plan(session, Actor("test"), acme.tenant_id, grow, ZONE)
    row, schedule = await acme.entitlement()
    assert (row.plan_version, schedule.segments) == ("grow@1", ())
    assert {period.plan_code for period in (await acme.periods()).values()} == {"grow"}
    with pytest.raises(NotFound):
        async with database.session() as session:
            await put_on_plan(session, Actor("test"), uuid7(), grow, ZONE)


async def test_a_subscription_outlives_another_own_plan(acme: Subscriber) -> None:
    one = await acme.subscribe(authorised_ms=at("2026-10-10"), start_ms=at("2026-10-10"))
    await acme.learn(one, "2026-10-10", "2037-01-10")
    async with acme.locked() as session:
        await put_on_plan(session, Actor("test"), acme.tenant_id, await session.get_one(Plan, ("grow", 1)), ZONE)
    row, _ = await acme.entitlement()
    assert row.plan_version == "team@1"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_rows_stay_apart_and_a_second_projection_is_silent(
    database: Database, seed: int
) -> None:
    dice = random.Random(seed)
    acme = await Subscriber.open(database)
    one = await acme.subscribe(dice.choice(("team", "grow")), authorised_ms=at("2026-12-10"), start_ms=at("2026-12-10"))
    boundaries = ["2026-12-10", *(f"2027-{month:02d}-10" for month in range(1, 12))]
    learned, now_ms = 0, at("2026-12-10T00:01")
    for step in range(STEPS):
        match dice.randrange(6):
            case 0 | 1 if learned < len(boundaries) - 1 and now_ms >= at(boundaries[learned]):
                paid = dice.random() < 0.7
                await acme.learn(one, boundaries[learned], boundaries[learned + 1], paid=paid)
                learned += 1
            case 2:
                await acme.change(one, status=dice.choice(("active", "pending", "halted", "paused")))
            case 3:
                await acme.change(one, cancel_at_ms=dice.choice((None, now_ms, now_ms + 9 * DAY_MS)))
            case 4:
                await acme.owe("2027-01-01", seq=step + 1, due_ms=now_ms + dice.randrange(-5, 5) * DAY_MS)
            case _:
                now_ms += dice.randrange(1, 12) * DAY_MS
        await _project_twice(acme, now_ms)
        cycles = [row for row in (await acme.periods()).values() if row.kind != "month"]
        assert all(before.ends_ms <= after.starts_ms for before, after in pairwise(cycles))


async def _project_twice(acme: Subscriber, now_ms: int) -> None:
    await acme.project_at(now_ms)
    before = [(name, row.starts_ms, row.ends_ms, row.state) for name, row in (await acme.periods()).items()]
    assert not await acme.project_at(now_ms + 1)
    after = [(name, row.starts_ms, row.ends_ms, row.state) for name, row in (await acme.periods()).items()]
    assert after == before


async def test_a_trial_stops_at_the_allowance_of_a_plan_that_bills(acme: Subscriber) -> None:
    await acme.subscribe(
        "grow",
        status="authenticated",
        authorised_ms=at("2026-12-10"),
        wanted_start_ms=at("2026-12-24"),
        start_ms=at("2026-12-24"),
    )
    await acme.project("2026-12-10T00:01")
    _, schedule = await acme.entitlement()
    segment = in_force(schedule, "2026-12-11")
    assert segment is not None
    assert ("output_tokens", 1000) in bounds(segment.limits)
