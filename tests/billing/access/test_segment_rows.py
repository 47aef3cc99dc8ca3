"""Every change of terms within a period cuts it: what began keeps its terms, and the rest has the new ones."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.dialects.postgresql import insert

from billing.catalogue.plans import put_on_plan
from billing.models import BillingPeriod, Plan
from billing.rating.overage import PastAllowance
from core.postgres.database import Database
from core.tenancy.audit import Actor
from metering.models import UsageMeter
from metering.quota.schedule import period_at
from metering.quota.windows import Calendar
from tests.billing.subscriber import MARK, ZONE, Subscriber, at, in_force, plan

CYCLE = f"2026-12-10-{MARK}"
NEXT = f"2027-01-10-{MARK}"
CALENDAR = Calendar(ZONE.key)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    yield made
    await made.close()


@pytest.fixture
async def acme(database: Database) -> Subscriber:
    made = await Subscriber.open(database)
    async with database.session() as session:
        for version in (2, 3):
            session.add(plan("team", 1000 * version, PastAllowance.BILL, version=version, base_paise=99_900))
    return made


async def started(acme: Subscriber, code: str = "team") -> UUID:
    """A subscription that began on December 10, its first cycle paid."""
    one = await acme.subscribe(code, authorised_ms=at("2026-12-10"), start_ms=at("2026-12-10"))
    await acme.learn(one, "2026-12-10", "2027-01-10")
    await acme.project("2026-12-10T00:01")
    return one


async def use(acme: Subscriber, name: str, tokens: int) -> None:
    """Adds output tokens to a segment's meter."""
    values = {"tenant_id": acme.tenant_id, "period_id": name, "shard": 0, "output_tokens": tokens}
    statement = insert(UsageMeter).values(values)
    more = {"output_tokens": UsageMeter.output_tokens + statement.excluded.output_tokens}
    async with acme.database.session() as session:
        await session.execute(
            statement.on_conflict_do_update(index_elements=["tenant_id", "period_id", "shard"], set_=more)
        )


async def move(acme: Subscriber, when: str, code: str, monkeypatch: pytest.MonkeyPatch, version: int = 1) -> None:
    """Changes the tenant's own plan at a time."""
    monkeypatch.setattr("billing.catalogue.plans.now_ms", lambda: at(when))
    async with acme.database.session() as session:
        chosen = await session.get_one(Plan, (code, version))
        await put_on_plan(session, Actor("test"), acme.tenant_id, chosen, ZONE)


def spans(rows: dict[str, BillingPeriod], window: str) -> list[tuple[str, str, int, int]]:
    """(name, plan, start, end) of a period's segments."""
    return [
        (name, f"{row.plan_code}@{row.plan_version}", row.starts_ms, row.ends_ms)
        for name, row in rows.items()
        if name.split("~")[0] == window
    ]


async def admitted(acme: Subscriber, when: str) -> tuple[str, str, int | None]:
    """The segment, the plan and the bound on output that admission has at a time."""
    row, schedule = await acme.entitlement()
    segment = in_force(schedule, when)
    name = period_at(schedule.periods, at(when), CALENDAR).name
    version = row.plan_version if segment is None else str(segment.plan_version)
    bounds = {} if segment is None else {limit.meter.value: limit.limit for limit in segment.limits.bounds}
    return name, version, bounds.get("output_tokens")


async def test_another_version_cuts_the_cycle_and_the_coming_ones_begin_with_it(acme: Subscriber) -> None:
    one = await started(acme)
    await acme.change(one, plan_version=2)
    assert await acme.project("2026-12-20")
    rows = await acme.periods()
    assert spans(rows, CYCLE) == [
        (CYCLE, "team@1", at("2026-12-10"), at("2026-12-20")),
        (f"{CYCLE}~2", "team@2", at("2026-12-20"), at("2027-01-10")),
    ]
    assert spans(rows, NEXT) == [(NEXT, "team@2", at("2027-01-10"), at("2027-02-10"))]
    assert rows[f"{CYCLE}~2"].paid
    assert [(await admitted(acme, when))[:2] for when in ("2026-12-19T23:59", "2026-12-20", "2027-01-10")] == [
        (CYCLE, "team@1"),
        (f"{CYCLE}~2", "team@2"),
        (NEXT, "team@2"),
    ]
    assert not await acme.project("2026-12-20T00:01")


async def test_segments_that_an_older_process_moved_are_put_right(acme: Subscriber) -> None:
    one = await started(acme)
    await acme.change(one, plan_version=2)
    await acme.project("2026-12-20")
    was = spans(await acme.periods(), CYCLE)
    async with acme.locked() as session:
        (await session.get_one(BillingPeriod, (acme.tenant_id, CYCLE))).ends_ms = at("2027-01-10")
        (await session.get_one(BillingPeriod, (acme.tenant_id, f"{CYCLE}~2"))).ends_ms = at("2026-12-21")
    await acme.project("2026-12-22")
    assert spans(await acme.periods(), CYCLE) == was


async def test_a_bound_counts_the_whole_period_and_follows_what_earlier_segments_used(acme: Subscriber) -> None:
    one = await started(acme)
    await use(acme, CYCLE, 400)
    async with acme.database.session() as session:
        session.add(plan("small", 500, PastAllowance.BLOCK, base_paise=99_900))
    await acme.change(one, plan_code="small")
    await acme.project("2026-12-20")
    assert await admitted(acme, "2026-12-20") == (f"{CYCLE}~2", "small@1", 500), "100 of it are left"
    await use(acme, CYCLE, 300)
    assert await acme.project("2026-12-21")
    assert await admitted(acme, "2026-12-21") == (f"{CYCLE}~2", "small@1", 700), "nothing is left"
    assert (await admitted(acme, "2027-01-10"))[2] == 500


async def test_a_cut_at_the_moment_of_another_leaves_an_empty_segment(acme: Subscriber) -> None:
    one = await started(acme)
    for version in (2, 3):
        await acme.change(one, plan_version=version)
        await acme.project("2026-12-20")
    rows = await acme.periods()
    assert [(name, row.ends_ms - row.starts_ms) for name, row in rows.items() if CYCLE in name][1] == (f"{CYCLE}~2", 0)
    _, schedule = await acme.entitlement()
    assert f"{CYCLE}~2" not in {period.name for period in schedule.periods}
    assert await admitted(acme, "2026-12-20") == (f"{CYCLE}~3", "team@3", None)


async def test_an_end_before_the_last_segment_began_leaves_it_empty(acme: Subscriber) -> None:
    one = await started(acme)
    await acme.change(one, plan_version=2)
    await acme.project("2026-12-20")
    await acme.change(one, status="cancelled", ended_ms=at("2026-12-19"), paid_through_ms=None)
    await acme.project("2026-12-21")
    assert spans(await acme.periods(), CYCLE) == [
        (CYCLE, "team@1", at("2026-12-10"), at("2026-12-20")),
        (f"{CYCLE}~2", "team@2", at("2026-12-20"), at("2026-12-20")),
    ]
    assert NEXT not in await acme.periods()


async def test_a_cut_cycle_that_razorpay_confirms_keeps_its_cuts(acme: Subscriber) -> None:
    one = await started(acme)
    await acme.project("2027-01-10T00:01")
    await acme.change(one, plan_version=2)
    await acme.project("2027-01-11")
    await acme.learn(one, "2027-01-10", "2027-02-10")
    await acme.project("2027-01-11T00:05")
    rows = await acme.periods()
    assert spans(rows, NEXT) == [
        (NEXT, "team@1", at("2027-01-10"), at("2027-01-11")),
        (f"{NEXT}~2", "team@2", at("2027-01-11"), at("2027-02-10")),
    ]
    assert {rows[name].foreseen for name in (NEXT, f"{NEXT}~2")} == {False}


async def test_a_trial_is_cut_too(acme: Subscriber) -> None:
    one = await acme.subscribe(
        status="authenticated",
        authorised_ms=at("2026-12-10"),
        wanted_start_ms=at("2026-12-24"),
        start_ms=at("2026-12-24"),
        remaining_count=12,
    )
    await acme.project("2026-12-10T00:01")
    await acme.change(one, plan_version=2)
    await acme.project("2026-12-15")
    trial = f"2026-12-10-trial-{MARK}"
    rows = await acme.periods()
    assert [span[:2] for span in spans(rows, trial)] == [(trial, "team@1"), (f"{trial}~2", "team@2")]
    assert rows[f"{trial}~2"].terms["past_allowance"] == "block"
    assert await admitted(acme, "2026-12-15") == (f"{trial}~2", "team@2", 2000)


async def test_a_move_by_the_operator_cuts_the_month(acme: Subscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    await acme.project("2026-12-01")
    await use(acme, "2026-12", 60)
    await move(acme, "2026-12-11", "team", monkeypatch)
    assert spans(await acme.periods(), "2026-12") == [
        ("2026-12", "free@1", at("2026-12-01"), at("2026-12-11")),
        ("2026-12~2", "team@1", at("2026-12-11"), at("2027-01-01")),
    ]
    assert await admitted(acme, "2026-12-11") == ("2026-12~2", "team@1", 1000), "60 of 1,000 were used before"
    assert await admitted(acme, "2027-01-01") == ("2027-01", "team@1", 1000)
    assert (await admitted(acme, "2026-12-10"))[0] == "2026-12"


async def test_a_month_that_is_cut_and_interrupted_goes_on(acme: Subscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    await acme.project("2026-12-01")
    await move(acme, "2026-12-05", "grow", monkeypatch)
    one = await started(acme)
    await move(acme, "2026-12-12", "free", monkeypatch)
    assert await admitted(acme, "2026-12-13") == (CYCLE, "team@1", 1000), "the subscription is in force"
    await acme.change(one, cancel_at_ms=at("2026-12-20"), status="cancelled", paid_through_ms=at("2026-12-20"))
    await acme.project("2026-12-14")
    names = [(await admitted(acme, day))[0] for day in ("2026-12-04", "2026-12-07", "2026-12-14", "2026-12-21")]
    assert names == ["2026-12", "2026-12~2", CYCLE, "2026-12~3"]
    rows = await acme.periods()
    assert spans(rows, "2026-12")[2] == ("2026-12~3", "free@1", at("2026-12-20"), at("2027-01-01"))
    await move(acme, "2026-12-15", "grow", monkeypatch)
    assert spans(await acme.periods(), "2026-12")[2:] == [
        ("2026-12~3", "grow@1", at("2026-12-20"), at("2027-01-01"))
    ], "what has not begun is rewritten"


async def test_past_months_keep_the_plan_that_they_were_used_under(
    acme: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(acme, "2026-10", 60)
    await move(acme, "2026-12-11", "grow", monkeypatch)
    rows = await acme.periods()
    assert spans(rows, "2026-10")[0][:2] == ("2026-10", "free@1")
    assert [span[:2] for span in spans(rows, "2026-12")] == [("2026-12", "free@1"), ("2026-12~2", "grow@1")]


@pytest.mark.parametrize("tokens", [0, 300])
async def test_what_a_tenant_used_before_its_first_plan_has_no_row(
    database: Database, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    nobody = await Subscriber.open(database, own_plan=None)
    await use(nobody, "2026-11", 50)
    if tokens:
        await use(nobody, "2026-12", tokens)
    await move(nobody, "2026-12-11", "team", monkeypatch)
    rows = await nobody.periods()
    assert set(rows) == {"2026-12~2" if tokens else "2026-12", "2027-01"}
    await move(nobody, "2026-12-12", "free", monkeypatch)
    name, version, bound = await admitted(nobody, "2026-12-12")
    assert (name, version) == ("2026-12~3" if tokens else "2026-12~2", "free@1")
    assert bound == 100 + tokens, "the allowance is whole, and the window has all units"


async def test_a_plan_taken_back_within_the_month_resumes_with_its_rest(
    acme: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    await acme.project("2026-12-01")
    await use(acme, "2026-12", 60)
    await move(acme, "2026-12-05", "team", monkeypatch)
    await use(acme, "2026-12~2", 30)
    await move(acme, "2026-12-06", "free", monkeypatch)
    assert await admitted(acme, "2026-12-06") == ("2026-12~3", "free@1", 100), "10 of 100 are left after 90"


async def test_terms_that_an_earlier_version_edited_are_cut_and_not_priced_again(acme: Subscriber) -> None:
    await started(acme)
    edited: dict[str, Any] = {"past_allowance": "bill", "ceiling_paise": 70_000}
    async with acme.locked() as session:
        row = await session.get_one(BillingPeriod, (acme.tenant_id, CYCLE))
        row.terms = row.terms | edited
    assert await acme.project("2026-12-12")
    rows = await acme.periods()
    assert rows[CYCLE].terms["past_allowance"] == "bill"
    assert (rows[CYCLE].ends_ms, rows[f"{CYCLE}~2"].terms["past_allowance"]) == (at("2026-12-12"), "block")
