"""Request rows and usage reports over HTTP."""

import csv
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest

from api.schemas.csv_text import cell
from core.clock import to_ms
from core.ids import uuid7
from metering.counts import COUNT_COLUMNS
from metering.reports.usage_report import RATED, RATED_SUMS, SUMS
from tests.api.conftest import Api
from tests.harness import Account
from tests.rollups import fill_rollups

NOW = datetime.now(UTC).replace(microsecond=0)


async def used(api: Api, account: Account, day: date, model: str, *, factor: int = 1) -> None:
    await api.books.fetch(
        f"INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, {', '.join(COUNT_COLUMNS)})"
        " VALUES ($1, $2, $3, 'p', $4, $5, $6::bigint, "
        + ", ".join(f"$6 * {place}" for place in range(2, len(COUNT_COLUMNS) + 1))
        + ")",
        account.tenant_id,
        account.user_id,
        day,
        account.key_id,
        model,
        factor,
    )
    await fill_rollups(api.books)


async def asked(api: Api, account: Account, at: datetime, state: str = "settled") -> UUID:
    request_id = uuid7(to_ms(at))
    await api.books.fetch(
        "INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, model_asked, opened_at, requests)"
        " VALUES ($1, $2, $3, $4, $5, 'm', $6, 1)",
        account.tenant_id,
        request_id,
        account.user_id,
        account.key_id,
        state,
        at,
    )
    return request_id


@pytest.mark.slow
async def test_requests_are_listed_and_filtered(api: Api) -> None:
    admin = await api.tenant_admin()
    other = await api.books.account(tenant_id=admin.tenant_id)
    stranger = await api.books.account()
    older = await asked(api, admin, NOW - timedelta(hours=2))
    newer = await asked(api, other, NOW - timedelta(hours=1), "open")
    foreign = await asked(api, stranger, NOW)

    async def ids(account: Account, **query: str) -> list[UUID]:
        answer = await api.call(account, "GET", "/requests", params=query, expect=200)
        return [UUID(item["id"]) for item in answer.json()["items"]]

    assert await ids(admin) == [newer, older]
    assert await ids(admin, user_id=str(other.user_id)) == [newer]
    assert await ids(admin, state="settled") == [older]
    assert await ids(admin, **{"from": (NOW - timedelta(hours=1)).isoformat()}) == [newer]
    assert await ids(admin, to=(NOW - timedelta(hours=1)).isoformat()) == [older]
    assert await ids(admin, cursor=str(newer)) == [older]
    operator = await api.platform_admin()
    assert await ids(operator) == [foreign, newer, older]
    assert await ids(operator, tenant_id=str(stranger.tenant_id)) == [foreign]
    both = {"tenant_id": str(stranger.tenant_id), "user_id": str(other.user_id)}
    await api.call(operator, "GET", "/requests", params=both, expect=404)
    row = (await api.call(admin, "GET", "/requests", params={"limit": "1"}, expect=200)).json()
    assert row["next"] == str(newer)
    assert (row["items"][0]["model"], row["items"][0]["requests"]) == ("m", 1)


async def test_a_day_means_the_operators_day(api: Api) -> None:
    admin = await api.tenant_admin()
    midnight = NOW.replace(hour=18, minute=30, second=0) - timedelta(days=1)  # in Asia/Kolkata
    before = await asked(api, admin, midnight - timedelta(seconds=1))
    after = await asked(api, admin, midnight)
    last_day = (midnight - timedelta(seconds=1)).date().isoformat()
    next_day = (midnight + timedelta(days=1)).date().isoformat()
    until = (await api.call(admin, "GET", "/requests", params={"to": last_day}, expect=200)).json()["items"]
    since = (await api.call(admin, "GET", "/requests", params={"from": next_day}, expect=200)).json()["items"]
    assert [item["id"] for item in until] == [str(before)]
    assert [item["id"] for item in since] == [str(after)]


@pytest.mark.parametrize(
    "query",
    [
        {"state": "lost"},
        {"from": "yesterday"},
        {"from": "2026-11-01T00:00:00"},
        {"to": "1999-01-01"},
        {"to": "1700000000"},
        {"cursor": "1"},
        {"user_id": "1"},
    ],
)
async def test_a_bad_filter_is_refused(api: Api, query: dict[str, str]) -> None:
    await api.call(await api.tenant_admin(), "GET", "/requests", params=query, expect=422)


@pytest.mark.slow
async def test_a_report_sums_by_the_groups_asked_for(api: Api) -> None:
    admin = await api.tenant_admin()
    today = NOW.date()
    for day, model, factor in ((today, "a", 1), (today, "b", 10), (today - timedelta(days=1), "a", 100)):
        await used(api, admin, day, model, factor=factor)
    await used(api, await api.books.account(), today, "a", factor=10**15)
    span = {"from": (today - timedelta(days=9)).isoformat(), "to": today.isoformat()}

    async def rows(group_by: str) -> list[dict[str, Any]]:
        query = span | {"group_by": group_by}
        answer = (await api.call(admin, "GET", "/reports/usage", params=query, expect=200)).json()
        assert answer["next"] is None
        found: list[dict[str, Any]] = answer["items"]
        return found

    def counts(factor: int) -> dict[str, int]:
        sums = {name: factor * (place + 1) for place, name in enumerate(COUNT_COLUMNS)}
        return sums | {"errors": 0, RATED: 0}

    assert await rows("model") == [{"model": "a"} | counts(101), {"model": "b"} | counts(10)]
    assert await rows("") == [counts(111)]
    assert await rows("tenant,tenant") == [{"tenant_id": str(admin.tenant_id)} | counts(111)]
    whole = await rows("tenant,user,key,model,day")
    assert [row["requests"] for row in whole] == [100, 1, 10]
    assert set(whole[0]) == {"tenant_id", "user_id", "key_id", "model", "day", *SUMS, RATED}


async def test_an_empty_report_is_whole(api: Api) -> None:
    admin = await api.tenant_admin()
    answer = await api.call(admin, "GET", "/reports/usage", expect=200)
    assert answer.json() == {"items": [], "next": None}
    text = await api.call(admin, "GET", "/reports/usage", params={"format": "csv", "group_by": "model"}, expect=200)
    assert text.text == "\ufeff" + ",".join(("model", *RATED_SUMS)) + "\r\n"


@pytest.mark.slow
async def test_a_long_csv_is_whole_and_runs_no_formula(api: Api) -> None:
    admin = await api.tenant_admin()
    evil = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", 'plain "quoted", text']
    for model in evil:
        await used(api, admin, NOW.date(), model)
    await api.books.fetch(
        "INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, requests)"
        " SELECT $1, $2, $3, 'p', $4, 'm' || n, n FROM generate_series(1, 3000) n",
        admin.tenant_id,
        admin.user_id,
        NOW.date(),
        admin.key_id,
    )
    await fill_rollups(api.books)
    query = {"format": "csv", "group_by": "model", "from": NOW.date().isoformat(), "to": NOW.date().isoformat()}
    answer = await api.call(admin, "GET", "/reports/usage", params=query, expect=200)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.content.startswith(b"\xef\xbb\xbfmodel,"), "without a byte order mark Excel breaks what is not ASCII"
    rows = list(csv.DictReader(StringIO(answer.content.decode("utf-8-sig"), newline="")))
    assert len(rows) == 3000 + len(evil)
    assert sum(int(row["requests"]) for row in rows) == 3000 * 3001 // 2 + len(evil)
    models = {row["model"] for row in rows}
    assert {f"'{text}" for text in evil[:-1]} | {evil[-1]} <= models
    assert not any(model.startswith(("=", "+", "-", "@", "\t", "\r")) for model in models)


def test_only_texts_are_defused() -> None:
    assert cell(-5) == "-5"
    assert cell("=A1") == "'=A1"
    assert cell("a=b") == "a=b"
    for text in ("\uff1d1", "\uff0b1", "\uff0d1", "\uff20a", " =1", "\u00a0@a", "\n1", "\t"):
        assert cell(text) == f"'{text}", "full-width signs and blanks are no way around it"
    assert cell("भारत प्राइवेट") == "भारत प्राइवेट"
    assert cell(" a") == " a"


@pytest.mark.parametrize(
    "query",
    [{"group_by": "colour"}, {"group_by": "day,"}, {"format": "xml"}, {"from": "2026-02-02", "to": "2026-02-01"}],
)
async def test_a_bad_report_is_refused(api: Api, query: dict[str, str]) -> None:
    await api.call(await api.tenant_admin(), "GET", "/reports/usage", params=query, expect=422)


@pytest.mark.slow
async def test_a_report_that_nobody_reads_on_gives_its_connection_back(api: Api) -> None:
    admin = await api.tenant_admin()
    await api.books.fetch(
        "INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, requests)"
        " SELECT $1, $2, $3, 'p', $4, 'm' || n, n FROM generate_series(1, 3000) n",
        admin.tenant_id,
        admin.user_id,
        NOW.date(),
        admin.key_id,
    )
    day = NOW.date().isoformat()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"} if len(sent) > 1 else {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if len(sent) > 1:
            raise OSError("the client left")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/v1/admin/reports/usage",
        "raw_path": b"/v1/admin/reports/usage",
        "query_string": f"group_by=model&from={day}&to={day}".encode(),
        "headers": [(b"authorization", f"Bearer {admin.key}".encode())],
        "scheme": "http",
        "server": ("naka.test", 80),
        "client": ("127.0.0.1", 1),
    }
    await api.app(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 200
    assert api.app.state.runtime.database.engine.pool.checkedout() == 0
