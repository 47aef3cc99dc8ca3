"""Once a revocation is answered, no request opens with the key, on any worker, whatever each has cached."""

import asyncio
import time
from collections.abc import Callable

import pytest

from core.tenancy.principal import Scope
from tests.harness import Account, Api, Books, Simulator, chat, client, scripted
from tests.programs import until


@pytest.mark.slow
@pytest.mark.chaos
async def test_no_request_opens_after_a_revocation(
    api: Api, start_api: Callable[..., Api], books: Books, simulator: Simulator
) -> None:
    other = start_api(DIRECTORY_TTL_S="300")  # a worker that would trust its cache for long
    admin = await books.account(scopes=[Scope.TENANT_ADMIN])
    for _ in range(3):
        victim = await books.account(tenant_id=admin.tenant_id)
        asked: list[tuple[float, int]] = []
        ended = asyncio.Event()
        urls = (api.url, other.url) * 4
        askers = [asyncio.create_task(_keep_asking(url, victim, asked, ended)) for url in urls]
        await _answers(asked, 2 * len(urls))
        async with client(api.url) as http:
            revoked = await http.delete(f"/v1/admin/keys/{victim.key_id}", headers=admin.headers)
        answered_at = time.monotonic()
        opened_then = {row["id"] for row in await books.requests(victim)}
        await asyncio.sleep(0.5)
        ended.set()
        await asyncio.gather(*askers)

        assert revoked.status_code == 204
        assert {status for _, status in asked} == {200, 401}
        assert {status for began, status in asked if began > answered_at} == {401}
        assert {row["id"] for row in await books.requests(victim)} == opened_then, "a request opened afterwards"
        assert len(simulator.ledger(victim.key_id.hex)) == len(opened_then)


async def _answers(asked: list[tuple[float, int]], least: int) -> None:
    """Returns once so many requests were answered."""

    async def enough() -> bool:
        return len(asked) >= least

    await until(enough)


async def _keep_asking(url: str, account: Account, asked: list[tuple[float, int]], ended: asyncio.Event) -> None:
    """Sends requests repeatedly, and records their start and result."""
    async with client(url) as http:
        while not ended.is_set():
            began = time.monotonic()
            answer = await chat(http, account, scripted(ref=account.key_id.hex, words=2))
            asked.append((began, answer.status))


@pytest.mark.chaos
async def test_a_worker_that_missed_the_news_opens_nothing(
    start_api: Callable[..., Api], books: Books, simulator: Simulator
) -> None:
    api = start_api(DIRECTORY_TTL_S="300")
    victim = await books.account()
    ref = victim.key_id.hex
    async with client(api.url) as http:
        assert (await chat(http, victim, scripted(ref=ref))).done  # now the worker knows the key, for five minutes
        await books.fetch("UPDATE api_keys SET revoked_at = now() WHERE id = $1", victim.key_id)

        refused = await chat(http, victim, scripted(ref=ref))

    assert refused.status == 401
    assert len(await books.requests(victim)) == len(simulator.ledger(ref)) == 1
