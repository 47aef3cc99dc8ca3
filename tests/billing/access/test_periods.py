"""Rows of billing periods: Razorpay's cycles, foreseen ones, trials, and calendar months."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from billing.models import BillingPeriod
from core.postgres.database import Database
from core.tenancy.models import Tenant
from tests.billing.subscriber import MARK, Subscriber, at


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    yield made
    await made.close()


@pytest.fixture
async def acme(database: Database) -> Subscriber:
    return await Subscriber.open(database)


STARTED: dict[str, Any] = {"authorised_ms": at("2026-12-10T11:30"), "start_ms": at("2026-12-10T11:30")}
FIRST, SECOND, THIRD, FOURTH = (f"{day}-{MARK}" for day in ("2026-12-10", "2027-01-10", "2027-02-10", "2027-03-10"))


async def started(acme: Subscriber, code: str = "team") -> UUID:
    """A subscription that began on December 10, its first cycle paid."""
    one = await acme.subscribe(code, **STARTED)
    await acme.learn(one, "2026-12-10T11:30", "2027-01-10")
    return one


def spans(rows: dict[str, BillingPeriod]) -> dict[str, tuple[int, int]]:
    return {name: (row.starts_ms, row.ends_ms) for name, row in rows.items()}


async def test_a_tenant_on_its_own_plan_has_this_month_and_the_next(acme: Subscriber) -> None:
    await acme.project("2026-12-05")
    rows = await acme.periods()
    assert spans(rows) == {
        "2026-12": (at("2026-12-01"), at("2027-01-01")),
        "2027-01": (at("2027-01-01"), at("2027-02-01")),
    }
    assert {(row.kind, row.plan_code, row.state) for row in rows.values()} == {("month", "free", "open")}
    assert rows["2026-12"].terms["meters"] == [{"meter": "output_tokens", "allowance": 100, "rate_paise": 100}]


async def test_a_tenant_without_a_plan_has_no_rows(database: Database) -> None:
    nobody = await Subscriber.open(database, own_plan=None)
    await nobody.project("2026-12-05")
    assert await nobody.periods() == {}


async def test_another_own_plan_gets_the_rest_of_the_month_that_runs(acme: Subscriber) -> None:
    await acme.project("2026-12-05")
    async with acme.locked() as session:
        (await session.get_one(Tenant, acme.tenant_id)).plan_code = "grow"
    await acme.project("2026-12-06")
    rows = await acme.periods()
    assert spans(rows) == {
        "2026-12": (at("2026-12-01"), at("2026-12-06")),
        "2026-12~2": (at("2026-12-06"), at("2027-01-01")),
        "2027-01": (at("2027-01-01"), at("2027-02-01")),
    }
    assert [(row.plan_code, row.terms["past_allowance"]) for row in rows.values()] == [
        ("free", "block"),
        ("grow", "bill"),
        ("grow", "bill"),
    ]


async def test_a_subscription_ends_the_month_so_far_and_two_cycles_are_foreseen(acme: Subscriber) -> None:
    await acme.project("2026-12-05")
    one = await started(acme)
    await acme.project("2026-12-10T11:31")
    rows = await acme.periods()
    assert spans(rows) == {
        "2026-12": (at("2026-12-01"), at("2026-12-10T11:30")),
        FIRST: (at("2026-12-10T11:30"), at("2027-01-10")),
        SECOND: (at("2027-01-10"), at("2027-02-10")),
        THIRD: (at("2027-02-10"), at("2027-03-10")),
    }
    assert [(row.foreseen, row.paid) for row in rows.values()] == [
        (False, False),
        (False, True),
        (True, False),
        (True, False),
    ]
    assert {row.subscription_id for name, row in rows.items() if name != "2026-12"} == {one}
    assert rows[FIRST].razorpay_invoice_id == f"inv_{at('2026-12-10T11:30')}"


async def test_who_comes_back_within_the_month_goes_on_with_it(acme: Subscriber) -> None:
    await acme.project("2026-12-05")
    one = await acme.subscribe(**STARTED)
    await acme.learn(one, "2026-12-10T11:30", "2027-01-10", paid=False)
    await acme.project("2026-12-10T11:31")
    async with acme.locked() as session:
        month = await session.get_one(BillingPeriod, (acme.tenant_id, "2026-12"))
        month.state, month.closed_ms = "closed", at("2026-12-10T12:00")
    await acme.change(one, status="cancelled", ended_ms=at("2026-12-12"))
    await acme.project("2026-12-12T01:00")
    rows = await acme.periods()
    assert spans(rows) == {
        "2026-12": (at("2026-12-01"), at("2027-01-01")),
        FIRST: (at("2026-12-10T11:30"), at("2026-12-12")),
        "2027-01": (at("2027-01-01"), at("2027-02-01")),
    }
    assert rows["2026-12"].state == "open"


async def test_a_foreseen_cycle_becomes_razorpays(acme: Subscriber) -> None:
    one = await started(acme, "grow")
    await acme.project("2026-12-11")
    await acme.learn(one, "2027-01-10", "2027-02-10")
    await acme.project("2027-01-10T00:05")
    rows = await acme.periods()
    assert [(name, row.foreseen, row.paid) for name, row in rows.items() if row.kind == "cycle"] == [
        (FIRST, False, True),
        (SECOND, False, True),
        (THIRD, True, False),
        (FOURTH, True, False),
    ]
    assert rows[SECOND].terms["past_allowance"] == "bill"


async def test_learning_again_changes_nothing_and_paid_stays_paid(acme: Subscriber) -> None:
    one = await started(acme)
    await acme.project("2026-12-11")
    before = await acme.periods()
    await acme.learn(one, "2026-12-10T11:30", "2027-01-10")
    await acme.learn(one, "2026-12-10T11:30", "2027-01-10", paid=False)
    await acme.project("2026-12-11T00:01")
    after = await acme.periods()
    assert spans(after) == spans(before)
    assert after[FIRST].paid


async def test_boundaries_that_were_missed_give_the_rows_that_seeing_them_would_have_given(database: Database) -> None:
    prompt, late = [await Subscriber.open(database) for _ in range(2)]
    one, other = [
        await each.subscribe(**STARTED, razorpay_id=f"sub_{index}-{MARK}") for index, each in enumerate((prompt, late))
    ]
    cycles = [("2026-12-10T11:30", "2027-01-10"), ("2027-01-10", "2027-02-10"), ("2027-02-10", "2027-03-10")]
    for starts, ends in cycles:
        await prompt.learn(one, starts, ends)
        await prompt.project(f"{starts[:10]}T12:00")
    for starts, ends in reversed(cycles):
        await late.learn(other, starts, ends)
    await late.project("2027-02-10T12:00")

    def described(rows: dict[str, BillingPeriod]) -> list[tuple[Any, ...]]:
        return [
            (row.period_id, row.starts_ms, row.ends_ms, row.foreseen, row.paid, row.terms, row.state, row.plan_code)
            for row in rows.values()
            if row.kind == "cycle"
        ]

    assert described(await late.periods()) == described(await prompt.periods())


async def test_a_foreseen_cycle_that_will_not_be_goes_and_one_that_runs_is_cut(acme: Subscriber) -> None:
    one = await started(acme)
    await acme.project("2026-12-11")
    await acme.change(one, status="cancelled", ended_ms=at("2027-01-10T00:30"))
    await acme.project("2027-01-12")
    rows = await acme.periods()
    assert rows[SECOND].ends_ms == at("2027-01-12")
    assert THIRD not in rows
    assert rows["2027-01"].ends_ms == at("2027-02-01")
    await acme.project("2027-01-13")
    assert (await acme.periods())[SECOND].ends_ms == at("2027-01-12"), "what is over stays as it ended"


async def test_a_cycle_that_was_cut_and_is_paid_after_all_gets_its_end_back(acme: Subscriber) -> None:
    one = await started(acme)
    await acme.learn(one, "2027-01-10", "2027-02-10", paid=False)
    await acme.change(one, status="cancelled", ended_ms=at("2027-01-15"))
    await acme.project("2027-01-15T00:01")
    await acme.learn(one, "2027-01-10", "2027-02-10", paid=False)
    assert (await acme.periods())[SECOND].ends_ms == at("2027-01-15")
    await acme.learn(one, "2027-01-10", "2027-02-10")
    await acme.project("2027-01-20")
    rows = await acme.periods()
    assert (rows[SECOND].ends_ms, rows[SECOND].paid) == (at("2027-02-10"), True)
    assert rows["2027-01"].ends_ms == at("2027-01-20"), "the days in between were the month's"


async def test_a_trial_is_a_period_that_blocks(acme: Subscriber) -> None:
    await acme.subscribe(
        "grow",
        status="authenticated",
        authorised_ms=at("2026-12-10"),
        wanted_start_ms=at("2026-12-24"),
        start_ms=at("2026-12-24"),
        remaining_count=12,
    )
    await acme.project("2026-12-10T00:01")
    trial = (await acme.periods())[f"2026-12-10-trial-{MARK}"]
    assert (trial.kind, trial.starts_ms, trial.ends_ms) == ("trial", at("2026-12-10"), at("2026-12-24"))
    assert (trial.terms["past_allowance"], trial.foreseen) == ("block", False)
    assert (await acme.periods())[f"2026-12-24-{MARK}"].terms["past_allowance"] == "bill"
