"""Tags from admission to the rollup: what a row stores, what is added up, and the bound of distinct values."""

import asyncio
import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.clock import now_ms
from core.errors import Unavailable
from metering.pricing.tokens import Usage
from metering.quota.windows import Calendar
from metering.tags import resolution
from metering.tags.resolution import lock_values
from metering.tags.tags import Tags
from tests.harness import Account, Books
from tests.metering.outage import Start
from tests.metering.process import PATIENCE_S, Process, principal, text_ask
from tests.metering.tagged import declare

SEARCH: Tags = (("feature", "search"), ("team", "x"))


async def by_tag(books: Books, tenant_id: UUID) -> dict[tuple[str, str], tuple[int, int]]:
    """Requests and output tokens by tag."""
    rows = await books.fetch(
        "SELECT tag_key, tag_value, sum(requests)::int AS requests, sum(output_tokens)::int AS output_tokens"
        " FROM usage_by_tag WHERE tenant_id = $1 GROUP BY 1, 2",
        tenant_id,
    )
    return {(row["tag_key"], row["tag_value"]): (row["requests"], row["output_tokens"]) for row in rows}


async def stored(books: Books, account: Account) -> list[tuple[dict[str, str] | None, list[str] | None]]:
    """Tags and the keys that are added up, of each row in the order of the grants."""
    rows = await books.fetch(
        "SELECT tags::text AS tags, tag_keys FROM usage_requests WHERE tenant_id = $1 ORDER BY id", account.tenant_id
    )
    return [(json.loads(row["tags"]) if row["tags"] else None, row["tag_keys"]) for row in rows]


async def test_a_row_stores_all_tags_and_declared_keys_are_added_up(either: Process, books: Books) -> None:
    account = await books.account()
    await declare(books, account.tenant_id, "feature")
    await either.settle(await either.admit(account, tags=SEARCH), Usage(10, 20))
    await either.settle(await either.admit(account, tags=(("feature", "chat"),)), Usage(10, 30))
    await either.settle(await either.admit(account), Usage(10, 40))
    rows = [(dict(SEARCH), ["feature"]), ({"feature": "chat"}, ["feature"]), (None, None)]
    assert await stored(books, account) == rows
    assert await by_tag(books, account.tenant_id) == {("feature", "search"): (1, 20), ("feature", "chat"): (1, 30)}


async def test_a_token_with_a_budget_is_added_up_by_its_id(process: Process, books: Books) -> None:
    account = await books.account()
    ask = replace(text_ask(100, 68), tags=(("feature", "search"),))
    for budget in ((("requests", 10),), ()):
        who = replace(principal(account), token_id="t-1", budget=budget)
        await process.settle(await process.admission.admit(who, ask, within_s=PATIENCE_S), Usage(10, 20))
    tags = {"feature": "search", "nk:token": "t-1"}
    assert await stored(books, account) == [(tags, ["nk:token"]), (tags, None)]
    assert await by_tag(books, account.tenant_id) == {("nk:token", "t-1"): (1, 20)}


async def test_values_past_the_bound_are_other_and_the_day_is_marked(start: Start, books: Books) -> None:
    account = await books.account()
    await declare(books, account.tenant_id, "conversation", most=7)
    processes = [await start(), await start()]

    async def one(number: int) -> None:
        process = processes[number % 2]
        grant = await process.admit(account, max_tokens=16, tags=(("conversation", f"c-{number // 2 % 20}"),))
        await process.settle(grant, Usage(1, 1))

    await asyncio.gather(*(one(number) for number in range(80)))
    sums = {value: requests for (_, value), (requests, _) in (await by_tag(books, account.tenant_id)).items()}
    assert sums.pop("other") == 13 * 4
    assert sorted(sums.values()) == [4] * 7
    rows = await stored(books, account)
    assert sum(tags == {"conversation": "other", "nk:other": "conversation"} for tags, _ in rows) == 13 * 4
    values = await books.fetch("SELECT value FROM tag_values WHERE tenant_id = $1", account.tenant_id)
    assert {row["value"] for row in values} == {*sums, ""}


@pytest.mark.slow
async def test_values_whose_lock_is_taken_keep_no_other_tenant_waiting(process: Process, books: Books) -> None:
    stuck, other = [await books.account() for _ in range(2)]
    for account in (stuck, other):
        await declare(books, account.tenant_id, "feature")
    async with books.connection() as holder, holder.transaction():
        await _lock(holder, stuck)
        async with asyncio.timeout(5):
            refused, granted = await asyncio.gather(
                *(process.admit(account, tags=SEARCH) for account in (stuck, other)), return_exceptions=True
            )
    assert isinstance(refused, Unavailable)
    assert not isinstance(granted, BaseException)
    await process.admit(stuck, tags=SEARCH)


async def test_a_suspended_process_does_not_keep_others_from_a_tag_key(
    process: Process, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolution, "_IDLE_MS", 200)
    account = await books.account()
    await declare(books, account.tenant_id, "feature")
    async with books.connection() as stopped:
        await stopped.execute("BEGIN")
        await _lock(stopped, account)
        await process.admit(account, tags=SEARCH)
        assert stopped.is_closed()


async def _lock(connection: Any, account: Account) -> None:
    """Another process enters values of the account's key."""
    await lock_values(connection, [account.tenant_id], ["feature"], [Calendar("Asia/Kolkata").date_of(now_ms())])
