"""Refused requests are counted for their tenant by code, over several processes, a restart and Postgres's absence."""

import asyncio
from collections.abc import Callable

import pytest

from core.tenancy.principal import Scope
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.harness import Account, Api, Books, chat, client
from tests.programs import until

ONE_A_DAY = LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 1),))


async def _refusals(api: Api, account: Account, group_by: str = "code") -> dict[str, int]:
    async with client(api.url) as http:
        answer = await http.get(f"/v1/admin/reports/refusals?group_by={group_by}", headers=account.headers)
    assert answer.status_code == 200, answer.text
    return {item.get("code", ""): item["requests"] for item in answer.json()["items"]}


async def test_every_refusal_is_counted_once_by_its_code(start_api: Callable[..., Api], api: Api, books: Books) -> None:
    other = start_api(FAILING_REQUESTS_PER_MINUTE="1000")
    admin = await books.account(scopes=[Scope.TENANT_ADMIN])
    limited = await books.account(tenant_id=admin.tenant_id, limits=ONE_A_DAY)
    modest = await books.account(tenant_id=admin.tenant_id, models=["claude-haiku-4-5"])
    unable = await books.account(tenant_id=admin.tenant_id, scopes=[Scope.USAGE_READ])
    revoked = await books.account(tenant_id=admin.tenant_id)
    stranger = await books.account(limits=ONE_A_DAY, scopes=[Scope.TENANT_ADMIN, Scope.CHAT])
    async with client(api.url) as http, client(other.url) as elsewhere:
        ended = await http.delete(f"/v1/admin/keys/{revoked.key_id}", headers=admin.headers)
        assert ended.status_code == 204
        assert (await chat(http, limited)).status == 200
        for ask in (http, elsewhere, http):
            assert (await chat(ask, limited)).status == 429
            assert (await chat(ask, modest)).status == 403
            assert (await chat(ask, unable)).status == 403
            assert (await chat(ask, revoked)).status == 401
            assert (await chat(ask, revoked, message="")).status == 401
        assert (await chat(http, limited, model="claude-moon")).status == 422
        assert (await http.post("/chat", json={"message": "hello"})).status_code == 401, "of nobody"
        assert (await chat(http, stranger)).status == 200
        assert (await chat(http, stranger)).status == 429
    assert other.stop() == 0

    wanted = {"limit_reached": 3, "forbidden": 6, "unauthenticated": 6, "unknown_model": 1}

    async def is_counted() -> bool:
        return await _refusals(api, admin) == wanted

    await until(is_counted)
    assert await _refusals(api, admin, "") == {"": 16}
    assert await _refusals(api, stranger) == {"limit_reached": 1}


@pytest.mark.slow
async def test_counts_are_written_at_a_shutdown_and_added(start_api: Callable[..., Api], books: Books) -> None:
    account = await books.account(limits=ONE_A_DAY, scopes=[Scope.TENANT_ADMIN, Scope.CHAT])
    for number in (1, 2):
        brief = start_api(HEARTBEAT_S="10", DEAD_AFTER_S="60")
        async with client(brief.url) as http:
            assert (await chat(http, account)).status == (200 if number == 1 else 429)
            answers = await asyncio.gather(*(chat(http, account) for _ in range(20)))
        assert {answer.status for answer in answers} == {429}
        assert brief.stop() == 0
        (row,) = await books.fetch("SELECT * FROM usage_refusals WHERE tenant_id = $1", account.tenant_id)
        assert (row["code"], row["requests"]) == ("limit_reached", 20 if number == 1 else 41)
