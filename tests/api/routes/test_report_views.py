"""Views of usage over HTTP: narrowed, ordered, named and priced; and the same as a file, digit by digit."""

import csv
import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest

from api.schemas.csv_text import BYTE_ORDER_MARK
from core.clock import to_ms
from core.ids import uuid7
from metering.counts import COUNT_COLUMNS
from metering.reports.usage_report import RATED, SUMS
from tests.api.conftest import Api
from tests.harness import Account
from tests.rollups import fill_rollups

NOW = datetime.now(UTC).replace(microsecond=0)
MONTH = f"{NOW:%Y-%m}"
MODELS = ("claude-sonnet-4-6", "=cmd()")
RATES = {"input_tokens": 40_000, "output_tokens": 150_000}


async def busy_tenant(api: Api) -> list[Account]:
    """Three users on a plan with rates, the first an admin; each has used more than the one before."""
    admin = await api.tenant_admin()
    users = [admin, *[await api.books.account(tenant_id=admin.tenant_id) for _ in range(2)]]
    for place, user in enumerate(users):
        for model in MODELS:
            for back in range(3):
                counts = [10_000 * (place + 1) * (back + 1) for _ in COUNT_COLUMNS]
                await api.books.fetch(
                    f"INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, {', '.join(SUMS)})"
                    f" VALUES ($1, $2, $3, '{MONTH}', $4, $5, {', '.join(map(str, counts))}, 1)",
                    user.tenant_id,
                    user.user_id,
                    NOW.date() - timedelta(days=back),
                    user.key_id,
                    model,
                )
    meter = "INSERT INTO usage_meters (tenant_id, period_id, shard) VALUES ($1, $2, 0)"
    await api.books.fetch(meter, admin.tenant_id, MONTH)
    meters = [{"meter": name, "allowance": 0, "rate_paise": rate} for name, rate in RATES.items()]
    await api.books.fetch(
        "INSERT INTO plans (code, version, name, limits, meters) VALUES ('views', 1, 'Views', '{}', $1)",
        json.dumps(meters),
    )
    await api.books.fetch("UPDATE tenants SET plan_code = 'views', plan_version = 1 WHERE id = $1", admin.tenant_id)
    await fill_rollups(api.books)
    return users


async def view(api: Api, account: Account, **query: str) -> list[dict[str, Any]]:
    """The rows of a report of the last ten days; the file has the same."""
    wanted = {"from": (NOW.date() - timedelta(days=9)).isoformat(), "to": NOW.date().isoformat()} | query
    items = (await api.call(account, "GET", "/reports/usage", params=wanted, expect=200)).json()["items"]
    text = await api.call(account, "GET", "/reports/usage", params=wanted | {"format": "csv"}, expect=200)
    lines = list(csv.DictReader(StringIO(text.text.removeprefix(BYTE_ORDER_MARK))))
    assert [{name: value.removeprefix("'") for name, value in line.items()} for line in lines] == [
        {name: "" if value is None else str(value) for name, value in item.items()} for item in items
    ]
    found: list[dict[str, Any]] = items
    return found


@pytest.mark.slow
async def test_the_heaviest_first_and_by_name(api: Api) -> None:
    users = await busy_tenant(api)
    admin = users[0]
    rows = await view(api, admin, group_by="user", order="tokens", names="true")
    assert [UUID(row["user_id"]) for row in rows] == [user.user_id for user in reversed(users)]
    assert rows[0]["requests"] == 2 * 3 * (10_000 + 20_000 + 30_000), "a round number, written out"
    known = await api.books.fetch("SELECT id, external_id FROM users WHERE tenant_id = $1", admin.tenant_id)
    assert {UUID(row["user_id"]): row["external_id"] for row in rows} == {
        row["id"]: row["external_id"] for row in known
    }
    top = await view(api, admin, group_by="user", order=RATED, top="2", names="true")
    assert top == rows[:2]
    (total,) = await view(api, admin, group_by="")
    assert total == {name: sum(row[name] for row in rows) for name in (*SUMS, RATED)}
    assert total["errors"] == 18
    assert total[RATED] == sum(total[name] * rate * 1000 for name, rate in RATES.items())


@pytest.mark.slow
async def test_a_view_is_narrowed_and_nobody_elses(api: Api) -> None:
    users = await busy_tenant(api)
    admin, second, _ = users
    whole = await view(api, admin, group_by="user,key,model,day")

    async def narrowed(**query: str) -> None:
        rows = await view(api, admin, group_by="day", **query)
        expected: dict[str, Counter[str]] = {}
        for row in whole:
            if all(row[name] == value for name, value in query.items()):
                expected.setdefault(row["day"], Counter()).update({name: row[name] for name in (*SUMS, RATED)})
        assert {row.pop("day"): row for row in rows} == expected != {}

    await narrowed(user_id=str(second.user_id))
    await narrowed(key_id=str(second.key_id))
    await narrowed(model=MODELS[1])
    await narrowed(key_id=str(second.key_id), user_id=str(second.user_id), model=MODELS[0])

    stranger = await api.tenant_admin()
    operator = await api.platform_admin()
    assert await view(api, operator, group_by="day", key_id=str(second.key_id)) == await view(
        api, admin, group_by="day", key_id=str(second.key_id)
    )
    for path in ("/reports/usage", "/requests"):
        for account, query in (
            (stranger, {"key_id": str(second.key_id)}),
            (stranger, {"user_id": str(second.user_id)}),
            (admin, {"key_id": str(second.key_id), "user_id": str(admin.user_id)}),
            (operator, {"key_id": str(second.key_id), "tenant_id": str(stranger.tenant_id)}),
        ):
            await api.call(account, "GET", path, params=query, expect=404)
        for wrong in ({"order": "name"}, {"top": "0"}) if path == "/reports/usage" else ({"format": "xml"},):
            await api.call(admin, "GET", path, params=wrong, expect=422)


async def requests_of(api: Api, accounts: list[Account], count: int, dice: random.Random) -> None:
    """Settled requests, every tenth corrected."""
    made = []
    for number in range(count):
        of, at = dice.choice(accounts), NOW - timedelta(seconds=number)
        model, key_id, tokens = dice.choice(MODELS), dice.choice([of.key_id, uuid7()]), dice.choice([10_000, 7])
        made.append((of.tenant_id, uuid7(to_ms(at)), of.user_id, key_id, model, at, tokens))
    async with api.books.connection() as connection:
        await connection.executemany(
            "INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, model, outcome, source, model_known,"
            " opened_at, settled_at, requests, input_tokens)"
            " VALUES ($1, $2, $3, $4, 'settled', $5, 'completed', 'final', true, $6, $6, 1, $7)",
            made,
        )
        await connection.executemany(
            "INSERT INTO usage_entries (tenant_id, id, kind, request_id, user_id, period_id, day, actor, reason,"
            " input_tokens) VALUES ($1, $2, 'correction', $3, $4, 'p', $5, 't', 't', -9)",
            [(row[0], uuid7(), row[1], row[2], NOW.date()) for row in made[::10]],
        )


async def pages(api: Api, account: Account, query: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        wanted = query | {"limit": "200"} | ({"cursor": cursor} if cursor else {})
        answer = (await api.call(account, "GET", "/requests", params=wanted, expect=200)).json()
        found += answer["items"]
        cursor = answer["next"]
        if cursor is None:
            return found


async def test_the_file_of_requests_is_what_the_pages_show(api: Api) -> None:
    admin = await api.tenant_admin()
    accounts = [admin, await api.books.account(tenant_id=admin.tenant_id)]
    stranger = await api.tenant_admin()
    await requests_of(api, [*accounts, stranger], 620, random.Random(4))  # more than one batch of the cursor
    operator = await api.platform_admin()
    for account, query in (
        (operator, {}),
        (admin, {}),
        (admin, {"key_id": str(accounts[1].key_id)}),
        (admin, {"model": MODELS[1], "user_id": str(admin.user_id)}),
        (admin, {"state": "open"}),
    ):
        shown = await pages(api, account, query)
        assert all(item[name] == value for item in shown for name, value in query.items())
        answer = await api.call(account, "GET", "/requests", params=query | {"format": "csv"}, expect=200)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="requests.csv"'
        lines = list(csv.DictReader(StringIO(answer.content.decode("utf-8-sig"))))
        texts = [item | {"tags": ",".join(f"{key}={tag}" for key, tag in item["tags"].items())} for item in shown]
        assert [{name: value.removeprefix("'") for name, value in line.items()} for line in lines] == [
            {name: "" if value is None else str(value) for name, value in item.items()} for item in texts
        ], query
        assert bool(shown) == (query != {"state": "open"})
        assert {line["model"] for line in lines} <= {MODELS[0], f"'{MODELS[1]}"}, "and no formula runs"
        assert all(line["entries"] in "01" for line in lines)
    assert len(await pages(api, operator, {})) == 620
