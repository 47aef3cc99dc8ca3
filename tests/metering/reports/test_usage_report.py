"""Reports: every rollup gives the sums of the rows, and prices are exact."""

import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from billing.invoicing.report_prices import margin_paise, paise_of, period_rates
from core.clock import now_ms
from core.errors import Invalid
from core.tenancy.accounts import create_tenant, create_user
from metering.counts import COUNT_COLUMNS, LATER_COLUMNS
from metering.reports.usage_report import GROUPS, RATED, SUMS, UsageReport, whole_months
from tests.harness import ACTOR, Account, Books
from tests.metering.rows import KOLKATA
from tests.rollups import fill_rollups

MODELS = ("claude-sonnet-4-6", "claude-haiku-4-5", "")
FIRST = date(2026, 1, 20)
DAYS = 100
RATES = {"input_tokens": 40_001, "output_tokens": 150_000, "cache_write_tokens": 7, "web_searches": 90_000_000}
SPEND_RATE = 9_999
Row = dict[str, Any]


@pytest.fixture
async def report_books(database_url: str) -> AsyncIterator[Books]:
    books = Books(database_url)
    yield books
    await books.close()


@pytest.fixture
async def rows(report_books: Books) -> list[Row]:
    """The rollup's rows of a hundred days: a tenant billed by tokens, one billed by spend, one without a plan."""
    dice = random.Random(11)
    tenants = [await _tenant(report_books, plan) for plan in ("tokens", "spend", None)]
    made: list[Row] = []
    for _ in range(400):
        tenant, users = dice.choice(tenants)
        account = dice.choice(users)
        day = FIRST + timedelta(days=dice.randrange(DAYS))
        made.append(
            {
                "tenant_id": tenant,
                "user_id": account.user_id,
                "key_id": account.key_id,
                "model": dice.choice(MODELS),
                "day": day,
                "period_id": f"{day:%Y-%m}",
                **{name: dice.randrange(-3, 10**9) for name in SUMS},
            }
        )
    unique = list({tuple(row[name] for name in (*_KEY, "period_id")): row for row in made}.values())
    names = [*_KEY, "period_id", *SUMS]
    slots = ", ".join(f"${place + 1}" for place in range(len(names)))
    async with report_books.connection() as connection:
        statement = f"INSERT INTO usage_daily ({', '.join(names)}) VALUES ({slots})"
        await connection.executemany(statement, [[row[name] for name in names] for row in unique])
        await connection.execute(
            "INSERT INTO usage_meters (tenant_id, period_id, shard)"
            " SELECT DISTINCT tenant_id, period_id, 0 FROM usage_daily"
        )
    await fill_rollups(report_books)
    return unique


_KEY = ("tenant_id", "user_id", "key_id", "model", "day")


async def _tenant(books: Books, plan: str | None) -> tuple[UUID, list[Account]]:
    async with books.database.session() as session:
        tenant = await create_tenant(session, ACTOR, slug=f"r-{plan}".lower(), name="T")
        await create_user(session, ACTOR, tenant.id, external_id="nobody")
    accounts = [await books.account(tenant_id=tenant.id) for _ in range(3)]
    if plan is not None:
        rates = RATES if plan == "tokens" else {"spend": SPEND_RATE}
        meters = [{"meter": name, "allowance": 5, "rate_paise": rate} for name, rate in rates.items()]
        async with books.connection() as connection:
            await connection.execute(
                "INSERT INTO plans (code, version, name, limits, meters) VALUES ($1, 1, $1, '{}', $2)",
                plan,
                json.dumps(meters),
            )
            await connection.execute(
                "UPDATE tenants SET plan_code = $2, plan_version = 1 WHERE id = $1", tenant.id, plan
            )
            # The period of February has terms of its own: twice the rates.
            terms = {"meters": [meter | {"rate_paise": int(str(meter["rate_paise"])) * 2} for meter in meters]}
            await connection.execute(
                "INSERT INTO billing_periods (tenant_id, period_id, kind, starts_ms, ends_ms, plan_code, plan_version,"
                " terms) VALUES ($1, '2026-02', 'month', 0, 1, $2, 1, $3)",
                tenant.id,
                plan,
                json.dumps(terms),
            )
    return tenant.id, accounts


def expected(
    rows: list[Row], wanted: UsageReport, plans: dict[UUID, str | None]
) -> dict[tuple[Any, ...], Counter[str]]:
    """The expected report, by its groups."""
    found: dict[tuple[Any, ...], Counter[str]] = {}
    for row in rows:
        filters = ("tenant_id", "user_id", "key_id", "model")
        if not wanted.first <= row["day"] <= wanted.last:
            continue
        if any(getattr(wanted, name) not in (None, row[name]) for name in filters):
            continue
        named = row | {"month": row["day"].replace(day=1)}
        group = tuple(named[name if name in ("model", "day", "month") else f"{name}_id"] for name in wanted.group_by)
        sums = found.setdefault(group, Counter())
        sums.update({name: row[name] for name in SUMS} | {RATED: price(row, plans[row["tenant_id"]])})
    return found


def price(row: Row, plan: str | None) -> int:
    """In nano-paise."""
    if row["period_id"] < "2026-02":
        return 0  # a month before the tenant's first row: it had no plan
    factor = 2 if row["period_id"] == "2026-02" else 1
    if plan == "spend":
        return int(row["cost_nano_usd"]) * SPEND_RATE * factor
    if plan == "tokens":
        units = row | {"cache_write_tokens": row["cache_write_5m_tokens"] + row["cache_write_1h_tokens"]}
        return sum(int(units[name]) * rate * 1000 * factor for name, rate in RATES.items())
    return 0


@pytest.mark.slow
async def test_any_report_is_what_the_rows_add_up_to(report_books: Books, rows: list[Row]) -> None:
    dice = random.Random(5)
    plans = {row["id"]: row["plan_code"] for row in await report_books.fetch("SELECT id, plan_code FROM tenants")}
    for _ in range(120):
        first = FIRST + timedelta(days=dice.randrange(-10, DAYS))
        last = first + timedelta(days=dice.choice([0, 1, 20, 28, 31, 59, 70, 100]))
        some = dice.choice(rows)
        wanted = UsageReport(
            first,
            last,
            dice.sample(GROUPS, dice.randrange(4)),
            **{name: some[name] for name in dice.sample(_KEY[:4], dice.choice([0, 0, 1, 2]))},
            today=dice.choice([None, FIRST + timedelta(days=DAYS)]),
            named=dice.random() < 0.5,
        )
        tenant = wanted.tenant_id
        async with report_books.database.session() as session:
            found = (await session.execute(wanted.query(period_rates(tenant)))).mappings().all()
            plain = (await session.execute(replace(wanted, named=False).query())).mappings().all()
        groups = [name if name in ("model", "day", "month") else f"{name}_id" for name in wanted.group_by]
        table = {
            tuple(row[name] for name in groups): Counter({name: int(row[name]) for name in (*SUMS, RATED)})
            for row in found
        }
        if not groups and not any(table[()].values()):
            table = {}  # the sum of nothing is a row of zeros
        assert table == expected(rows, wanted, plans), wanted
        assert [[int(row[name]) for name in SUMS] for row in plain] == [
            [int(row[name]) for name in SUMS] for row in found
        ]
        assert list(found[0]) == wanted.columns if found else True
        assert wanted.columns[-4:] == ["errors", RATED, *LATER_COLUMNS]


async def test_the_first_of_an_order_and_the_others_make_the_whole(report_books: Books, rows: list[Row]) -> None:
    span = (FIRST, FIRST + timedelta(days=DAYS))
    async with report_books.database.session() as session:
        whole = (await session.execute(UsageReport(*span, ["user"], order="tokens").query())).mappings().all()
        top = (await session.execute(UsageReport(*span, ["user"], order="tokens", top=4).query())).mappings().all()
    assert len(whole) == len({row["user_id"] for row in rows})
    tokens = [sum(int(row[name]) for name in COUNT_COLUMNS if name.endswith("_tokens")) for row in whole]
    assert tokens == sorted(tokens, reverse=True)
    assert [row["user_id"] for row in top] == [row["user_id"] for row in whole[:4]]


def test_the_whole_months_of_a_range() -> None:
    day = date.fromisoformat
    assert whole_months(day("2026-01-01"), day("2026-03-31")) == (day("2026-01-01"), day("2026-03-31"))
    assert whole_months(day("2026-01-02"), day("2026-03-30")) == (day("2026-02-01"), day("2026-02-28"))
    assert whole_months(day("2026-01-02"), day("2026-02-27")) is None
    assert whole_months(day("2026-02-01"), day("2026-02-10"), day("2026-02-10")) == (
        day("2026-02-01"),
        day("2026-02-10"),
    )
    assert whole_months(day("2026-02-02"), day("2026-02-10"), day("2026-02-10")) is None
    assert whole_months(day("2024-02-01"), day("2024-02-29")) == (day("2024-02-01"), day("2024-02-29"))


def test_a_shown_amount_is_rounded_once_half_up() -> None:
    assert [paise_of(nano) for nano in (499_999_999, 500_000_000, -500_000_000, 1_500_000_000)] == [0, 1, -1, 2]
    assert margin_paise(10_000_000_000, 1_000_000, 8_800) == 1  # 10 paise less 8.8
    assert KOLKATA.date_of(now_ms()) >= FIRST


# ------------------------------------------------------------------------------------------------ by a tag


VALUES = ("search", "chat", None)
"""Values of the tag `feature`; None: no such tag."""


@pytest.fixture
async def tagged(report_books: Books, rows: list[Row]) -> list[Row]:
    """The rows with a tag each, or none, and the rollup by tag of them; `team` is a tag of all of them."""
    dice, names = random.Random(3), ("tenant_id", "day", "period_id", *SUMS)
    made = [row | {"tag": dice.choice(VALUES)} for row in rows]
    slots = ", ".join(f"${place + 4}" for place in range(len(names)))
    moved = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in SUMS)
    statement = (
        f"INSERT INTO usage_by_tag AS t (tag_key, tag_value, shard, {', '.join(names)}) VALUES ($1, $2, $3, {slots})"
        f" ON CONFLICT (tenant_id, tag_key, tag_value, day, period_id, shard) DO UPDATE SET {moved}"
    )
    async with report_books.connection() as connection:
        for key in ("feature", "team"):
            values = [(key, row["tag"] if key == "feature" else "x", row) for row in made]
            added = [
                [key, value, dice.randrange(3), *(row[name] for name in names)] for key, value, row in values if value
            ]
            await connection.executemany(statement, added)
    return made


@pytest.mark.slow
async def test_a_report_by_a_tag_adds_up_to_the_rows(report_books: Books, tagged: list[Row]) -> None:
    dice = random.Random(7)
    plans = {row["id"]: row["plan_code"] for row in await report_books.fetch("SELECT id, plan_code FROM tenants")}
    for _ in range(60):
        first = FIRST + timedelta(days=dice.randrange(-10, DAYS))
        tenant_id = dice.choice([None, dice.choice(tagged)["tenant_id"]])
        groups = ["tag:feature", *dice.sample(["tenant", "day", "month"], dice.randrange(3))]
        wanted = UsageReport(first, first + timedelta(days=dice.choice([0, 20, 90])), groups, tenant_id=tenant_id)
        async with report_books.database.session() as session:
            found = (await session.execute(wanted.query(period_rates(tenant_id)))).mappings().all()
        names = [{"tag:feature": "tag", "tenant": "tenant_id"}.get(group, group) for group in groups]
        table = {
            tuple(row[name] for name in names): Counter({name: int(row[name]) for name in (*SUMS, RATED)})
            for row in found
        }
        sums: dict[tuple[Any, ...], Counter[str]] = {}
        for row in tagged:
            if wanted.first <= row["day"] <= wanted.last and tenant_id in (None, row["tenant_id"]):
                of = tuple((row | {"month": row["day"].replace(day=1)})[name] for name in names)
                priced = {RATED: price(row, plans[row["tenant_id"]])}
                sums.setdefault(of, Counter()).update({name: row[name] for name in SUMS} | priced)
        assert table == sums, wanted


@pytest.mark.slow
async def test_without_a_tag_nothing_is_left_where_all_requests_have_it(report_books: Books, tagged: list[Row]) -> None:
    span = (FIRST, FIRST + timedelta(days=DAYS))
    async with report_books.database.session() as session:
        rows = (await session.execute(UsageReport(*span, ["tag:team"]).query())).mappings().all()
        none = (await session.execute(UsageReport(*span, ["tag:unknown"]).query())).mappings().all()
        some = (await session.execute(UsageReport(*span, ["day"], tag=("feature", "chat")).query())).mappings().all()
    whole = {name: sum(row[name] for row in tagged) for name in SUMS}
    assert [(row["tag"], {name: int(row[name]) for name in SUMS}) for row in rows] == [("x", whole)]
    assert [(row["tag"], {name: int(row[name]) for name in SUMS}) for row in none] == [(None, whole)]
    by_day: dict[date, int] = Counter()
    for row in tagged:
        by_day[row["day"]] += row["requests"] if row["tag"] == "chat" else 0
    assert {row["day"]: int(row["requests"]) for row in some} == {
        day: count for day, count in by_day.items() if any(r["tag"] == "chat" and r["day"] == day for r in tagged)
    }


@pytest.mark.parametrize(
    ("groups", "filters"),
    [
        (["tag:feature", "user"], {}),
        (["tag:feature", "model"], {}),
        (["tag:feature", "tag:team"], {}),
        (["tag:feature"], {"model": "m"}),
        (["tag:feature"], {"tag": ("team", "x")}),
        (["key"], {"tag": ("team", "x")}),
    ],
)
def test_what_is_not_added_up_by_tag_is_refused(groups: list[str], filters: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="tag"):
        UsageReport(FIRST, FIRST, groups, **filters)
