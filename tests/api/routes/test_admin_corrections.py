"""Corrections, credits and entries over HTTP and by command: who may, what is answered, what is shown afterwards."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from core.clock import to_ms
from core.ids import uuid7
from core.tenancy.principal import Scope
from metering.adjustments.revisions import revise
from metering.journal.records import Outcome, Settlement, Source
from metering.pricing.price import PriceBook
from metering.pricing.price_list import read_prices
from metering.pricing.tokens import Usage
from tests.api.cli.test_cli import Naka
from tests.api.conftest import Api
from tests.harness import Account
from tests.metering.rows import KOLKATA

MODEL = "claude-sonnet-4-6"
RATE = 15_000  # of output
CUT = {"deltas": {"output_tokens": -20}, "reason": "the answer was cut"}
GIFT = {"amounts": {"output_tokens": 500, "cost_nano_usd": 7}, "reason": "goodwill"}
ROW = (
    "INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, price_id, period_id, day, opened_at,"
    " model_asked, model, outcome, source, requests, input_tokens, output_tokens, cost_nano_usd)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, 'lost', 'estimated', 1, 10, 100, 1530000)"
)


async def asked(api: Api, account: Account, state: str = "settled") -> UUID:
    """A request of 10 + 100 tokens, whose process was lost. Its rollup is of no interest here."""
    opened_at = datetime.now(UTC)
    async with api.books.database.session() as session:
        price = PriceBook(await read_prices(session)).at(MODEL, to_ms(opened_at))
    request_id, day = uuid7(to_ms(opened_at)), KOLKATA.date_of(to_ms(opened_at))
    ids = (account.tenant_id, request_id, account.user_id, account.key_id)
    await api.books.fetch(ROW, *ids, state, price.id, f"{day:%Y-%m}", day, opened_at, MODEL)
    return request_id


async def revised(api: Api, account: Account, request_id: UUID, usage: Usage) -> None:
    """A better measurement of it."""
    ids = (account.tenant_id, request_id, account.user_id)
    final = Settlement(*ids, Outcome.COMPLETED, Source.FINAL, MODEL, model_known=True, requests=1, usage=usage)
    async with api.books.connection() as connection:
        assert await revise(connection, final)


async def test_searches_are_adjusted_and_thinking_is_not(api: Api) -> None:
    operator, admin = await api.platform_admin(), await api.tenant_admin()
    request_id = await asked(api, admin)
    path = f"/requests/{request_id}/corrections"
    entry = (
        await api.call(operator, "POST", path, json={"deltas": {"web_searches": 2}, "reason": "x"}, expect=201)
    ).json()
    assert (entry["web_searches"], entry["thinking_tokens"]) == (2, 0)
    (shown,) = (await api.call(admin, "GET", "/requests", expect=200)).json()["items"]
    assert (shown["web_searches"], shown["output_tokens"]) == (2, 100)
    await api.call(operator, "POST", path, json={"deltas": {"thinking_tokens": -1}, "reason": "x"}, expect=422)


async def test_a_correction_and_what_is_shown_of_it(api: Api) -> None:
    operator, admin = await api.platform_admin(), await api.tenant_admin()
    request_id = await asked(api, admin)
    path = f"/requests/{request_id}/corrections"
    entry = (await api.call(operator, "POST", path, json=CUT | {"reference": "t-1"}, expect=201)).json()
    assert (entry["kind"], entry["request_id"], entry["model"]) == ("correction", str(request_id), MODEL)
    assert (entry["output_tokens"], entry["cost_nano_usd"], entry["requests"]) == (-20, -20 * RATE, 0)
    assert (entry["reason"], entry["reference"]) == (CUT["reason"], "t-1")
    assert (entry["actor"], entry["actor_key_id"]) == (f"key:{operator.key_id}", str(operator.key_id))
    again = await api.call(operator, "POST", path, json=CUT | {"reference": "t-1"}, expect=200)
    assert again.json() == entry
    other = {"deltas": {"output_tokens": -21}, "reason": CUT["reason"], "reference": "t-1"}
    await api.call(operator, "POST", path, json=other, expect=409)
    await revised(api, admin, request_id, Usage(11, 101))
    (shown,) = (await api.call(admin, "GET", "/requests", expect=200)).json()["items"]
    assert (shown["source"], shown["outcome"], shown["entries"]) == ("final", "completed", 2)
    assert (shown["input_tokens"], shown["output_tokens"], shown["requests"]) == (11, 81, 1)
    entries = (await api.call(admin, "GET", f"/requests/{request_id}/entries", expect=200)).json()
    assert entries["items"][1] == entry
    assert (entries["items"][0]["kind"], entries["items"][0]["output_tokens"]) == ("revision", 1)
    assert await api.audit(admin.tenant_id) == ["usage.correct"]
    log = (await api.call(admin, "GET", "/audit", expect=200)).json()["items"][0]
    assert (log["target"], log["before"]["output_tokens"], log["after"]["output_tokens"]) == (
        f"request:{request_id}",
        100,
        80,
    )


async def test_a_credit_and_what_is_shown_of_it(api: Api) -> None:
    operator, admin = await api.platform_admin(), await api.tenant_admin()
    path = f"/users/{admin.user_id}/credits"
    entry = (await api.call(operator, "POST", path, json=GIFT | {"reference": "t-2"}, expect=201)).json()
    today = KOLKATA.date_of(to_ms(datetime.now(UTC)))
    assert (entry["period"], entry["day"]) == (f"{today:%Y-%m}", today.isoformat())
    assert (entry["output_tokens"], entry["cost_nano_usd"]) == (-500, -7)
    assert (entry["key_id"], entry["model"], entry["request_id"]) == (None, None, None)
    assert (await api.call(operator, "POST", path, json=GIFT | {"reference": "t-2"}, expect=200)).json() == entry
    past = GIFT | {"period": "2025-02"}
    assert (await api.call(operator, "POST", path, json=past, expect=201)).json()["day"] == "2025-02-28"
    span = {"from": "2025-02-01", "to": "2025-02-28", "group_by": "day"}
    (row,) = (await api.call(admin, "GET", "/reports/usage", params=span, expect=200)).json()["items"]
    assert (row["output_tokens"], row["cost_nano_usd"], row["requests"]) == (-500, -7, 0)
    assert await api.audit(admin.tenant_id) == ["usage.credit"] * 2


@pytest.mark.slow
async def test_entries_are_listed_and_filtered(api: Api) -> None:
    operator, admin = await api.platform_admin(), await api.tenant_admin()
    colleague, stranger = await api.books.account(tenant_id=admin.tenant_id), await api.books.account()
    request_id = await asked(api, colleague)
    made = [(await api.call(operator, "POST", f"/requests/{request_id}/corrections", json=CUT, expect=201)).json()]
    for account in (admin, stranger):
        path = f"/users/{account.user_id}/credits"
        made.append((await api.call(operator, "POST", path, json=GIFT, expect=201)).json())
    correction, credit, foreign = (entry["id"] for entry in made)

    async def ids(account: Account, **query: str) -> list[str]:
        answer = await api.call(account, "GET", "/entries", params=query, expect=200)
        return [item["id"] for item in answer.json()["items"]]

    assert await ids(admin) == [credit, correction]
    assert await ids(operator) == [foreign, credit, correction]
    assert await ids(operator, tenant_id=str(stranger.tenant_id)) == [foreign]
    assert await ids(admin, user_id=str(colleague.user_id)) == [correction]
    assert await ids(admin, kind="credit") == [credit]
    assert await ids(admin, kind="repair") == []
    assert await ids(admin, cursor=credit) == [correction]
    today = KOLKATA.date_of(to_ms(datetime.now(UTC)))
    assert await ids(admin, **{"from": (today - timedelta(days=1)).isoformat(), "to": today.isoformat()}) != []
    assert await ids(admin, to=(today - timedelta(days=1)).isoformat()) == []
    first = (await api.call(admin, "GET", "/entries", params={"limit": "1"}, expect=200)).json()
    assert first["next"] == credit
    of_request = await api.call(operator, "GET", f"/requests/{request_id}/entries", expect=200)
    assert [item["id"] for item in of_request.json()["items"]] == [correction]
    for query in ({"user_id": str(stranger.user_id)}, {"tenant_id": str(stranger.tenant_id)}):
        await api.call(admin, "GET", "/entries", params=query, expect=404)
    both = {"tenant_id": str(stranger.tenant_id), "user_id": str(admin.user_id)}
    await api.call(operator, "GET", "/entries", params=both, expect=404)


async def test_nobody_credits_itself(api: Api) -> None:
    admin = await api.books.account(scopes=[Scope.CHAT, Scope.USAGE_READ, Scope.TENANT_ADMIN])
    neighbour = await api.books.account()
    for account in (admin, neighbour):
        request_id = await asked(api, account)
        for path, body in ((f"/requests/{request_id}/corrections", CUT), (f"/users/{account.user_id}/credits", GIFT)):
            await api.call(admin, "POST", path, json=body, expect=403)
    await api.call(admin, "GET", f"/requests/{request_id}/entries", expect=404)
    assert await api.books.fetch("SELECT FROM usage_entries") == []


async def test_an_unknown_id_is_not_found(api: Api) -> None:
    operator = await api.platform_admin()
    for request_id in (uuid7(), uuid7(0), UUID(int=1)):
        await api.call(operator, "POST", f"/requests/{request_id}/corrections", json=CUT, expect=404)
        await api.call(operator, "GET", f"/requests/{request_id}/entries", expect=404)
        await api.call(operator, "POST", f"/users/{request_id}/credits", json=GIFT, expect=404)


@pytest.mark.parametrize(
    "change",
    [
        {"deltas": {}},
        {"deltas": {"output_tokens": -101}},
        {"deltas": {"output_tokens": 10**12 + 1}},
        {"deltas": {"output_tokens": 1.0}},
        {"deltas": {"output_tokens": "1"}},
        {"deltas": {"output_tokens": 1, "cost_nano_usd": 1}},
        {"deltas": {"tokens": 1}},
        {"deltas": None},
        {"reason": ""},
        {"reason": "x" * 501},
        {"reason": "a\0b"},
        {"reason": None},
        {"reference": ""},
        {"reference": "a\nb"},
        {"more": 1},
    ],
)
async def test_a_senseless_correction_is_refused(api: Api, change: dict[str, Any]) -> None:
    operator = await api.platform_admin()
    request_id = await asked(api, operator)
    await api.call(operator, "POST", f"/requests/{request_id}/corrections", json=CUT | change, expect=422)
    assert await api.books.fetch("SELECT FROM usage_entries") == []


@pytest.mark.parametrize(
    "change",
    [
        {"amounts": {}},
        {"amounts": {"requests": 0}},
        {"amounts": {"requests": -1}},
        {"amounts": {"requests": 10**12 + 1}},
        {"period": "2026-13"},
        {"period": "2026-1"},
        {"period": "1999-12"},
        {"period": "2101-01"},
        {"period": "2025-02", "day": "2025-03-01"},
        {"day": "2025-02-30"},
        {"reason": ""},
        {"tenant_id": str(UUID(int=1))},
    ],
)
async def test_a_senseless_credit_is_refused(api: Api, change: dict[str, Any]) -> None:
    operator = await api.platform_admin()
    await api.call(operator, "POST", f"/users/{operator.user_id}/credits", json=GIFT | change, expect=422)
    assert await api.books.fetch("SELECT FROM usage_entries") == []


async def test_an_open_request_cannot_be_corrected(api: Api) -> None:
    operator = await api.platform_admin()
    for state in ("open", "void"):
        request_id = await asked(api, operator, state)
        await api.call(operator, "POST", f"/requests/{request_id}/corrections", json=CUT, expect=422)
    shown = (await api.call(operator, "GET", "/requests", params={"state": "open"}, expect=200)).json()["items"]
    assert [item["entries"] for item in shown] == [0]


@pytest.mark.slow
async def test_the_commands(api: Api, tmp_path: Path, database_url: str, redis_url: str) -> None:
    naka = Naka(tmp_path, {"DATABASE_URL": database_url, "REDIS_URL": redis_url})
    account = await api.books.account()
    request_id = await asked(api, account)

    async def run(do: Callable[..., Any], *words: str) -> Any:
        return await asyncio.to_thread(do, *words)

    correct = (
        "correct",
        str(request_id),
        "--change",
        "output_tokens=-20",
        "--change",
        "requests=-1",
        "--reason",
        "cut",
    )
    entry = await run(naka.json, *correct, "--reference", "t-1")
    assert (entry["output_tokens"], entry["requests"], entry["cost_nano_usd"]) == (-20, -1, -20 * RATE)
    assert (await run(naka.json, *correct, "--reference", "t-1")) == entry
    assert entry["actor"].startswith("cli:")
    credit = ("credit", str(account.user_id), "--amount", "output_tokens=500", "--reason", "goodwill")
    assert (await run(naka.json, *credit, "--period", "2025-02"))["day"] == "2025-02-28"
    assert (await run(naka.json, *credit, "--day", "2025-03-05"))["period"] == "2025-03"
    for words, said in (
        ((*credit[:3], "output_tokens=-5", *credit[4:]), "output_tokens"),
        ((*credit, "--period", "soon"), "period"),
        ((*correct[:3], "tokens=1", *correct[6:]), "COUNT=N"),
        ((*correct, "--change", "requests=-1"), "COUNT=N"),
        ((*correct[:3], "output_tokens=-81", *correct[6:]), "would fall below 0"),
        (("correct", str(uuid7()), *correct[2:]), "no such request"),
        (("credit", str(uuid7()), *credit[2:]), "no such user"),
    ):
        assert said in await run(naka.fails, *words)
    assert len(await api.books.fetch("SELECT FROM usage_entries")) == 3
