"""A product tags its requests, by header and by body; finance reads what each feature and each conversation cost."""

import asyncio
import random
from typing import Any

import httpx2
import pytest

from core.tenancy.principal import Scope
from tests.harness import Account, Books, chat, scripted
from tests.metering.tagged import assert_tags_exact

VERSION = {"anthropic-version": "2023-06-01"}
MESSAGE = {"model": "claude-sonnet-4-6", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}


async def ask(http: httpx2.AsyncClient, account: Account, header: str | None, **body: Any) -> int:
    """One question on `/chat`; its status."""
    headers = account.headers | ({} if header is None else {"naka-tags": header})
    answer = await http.post("/chat", json={"message": scripted(words=3)} | body, headers=headers)
    return answer.status_code


async def report(http: httpx2.AsyncClient, account: Account, **query: str) -> list[dict[str, Any]]:
    """The rows of a report."""
    answer = await http.get("/v1/admin/reports/usage", params=query, headers=account.headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


@pytest.mark.slow
async def test_finance_reads_the_cost_of_features_and_conversations(http: httpx2.AsyncClient, books: Books) -> None:
    admin = await books.account(scopes=[Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ])
    path = f"/v1/admin/tenants/{admin.tenant_id}/tag-keys/feature"
    assert (await http.put(path, json={}, headers=admin.headers)).status_code == 200
    users = [admin, *[await books.account(tenant_id=admin.tenant_id) for _ in range(3)]]
    dice = random.Random(4)
    sent: list[tuple[str, str]] = []

    async def one(user: Account, feature: str, conversation: str) -> None:
        sent.append((feature, conversation))
        if dice.random() < 0.5:
            assert await ask(http, user, f"feature={feature},conversation={conversation}") == 200
            return
        body = {"tags": {"feature": feature, "conversation": conversation, "team": "x"}}
        assert await ask(http, user, None, **body) == 200

    drawn = [(dice.choice(users), dice.choice(["search", "chat"]), f"c-{dice.randrange(5)}") for _ in range(20)]
    await asyncio.gather(*(one(*each) for each in drawn))
    headers = admin.headers | VERSION | {"naka-tags": "feature=search"}
    assert (await http.post("/v1/messages", json=MESSAGE, headers=headers)).status_code == 200
    assert (await chat(http, admin)).status == 200

    (total,) = await report(http, admin, group_by="")
    for group, place in (("tag:feature", 0), ("tag:conversation", 1)):
        rows = {row["tag"]: row for row in await report(http, admin, group_by=group)}
        expected = {value: sum(each[place] == value for each in sent) for value in {each[place] for each in sent}}
        if group == "tag:feature":
            expected["search"] += 1
        assert {value: row["requests"] for value, row in rows.items() if value} == expected
        assert rows[None]["requests"] == 22 - sum(expected.values())
        for name in ("requests", "input_tokens", "output_tokens"):
            assert sum(row[name] for row in rows.values()) == total[name], name
    assert sum(row["requests"] for row in await report(http, admin, group_by="user")) == 22
    await assert_tags_exact(books, admin.tenant_id)


async def test_bad_tags_are_refused_and_nothing_is_stored(http: httpx2.AsyncClient, books: Books) -> None:
    account = await books.account()
    for header in ("feature", "Feature=x", "nk:token=t", "a=1,a=2", "a=%ff", ",".join(f"k{n}=x" for n in range(9))):
        assert await ask(http, account, header) == 422, header
        headers = account.headers | VERSION | {"naka-tags": header}
        answer = await http.post("/v1/messages", json=MESSAGE, headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), header
        assert "tags" in answer.json()["error"]["message"].lower()
    for tags in ({"a": ""}, {"a": 1}, ["a"], {"nk:x": "1"}, {f"k{n}": "x" for n in range(9)}):
        assert await ask(http, account, None, tags=tags) == 422, tags
    assert await ask(http, account, "a=1", tags={"a": "2"}) == 422
    assert await books.requests(account) == []
