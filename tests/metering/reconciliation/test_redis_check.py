"""Redis against Postgres: wrong windows and holds are found, requests in flight are not, and Redis is rebuilt."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from core.clock import now_ms
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts, tenant_key, user_key
from metering.counts import COUNT_COLUMNS
from metering.journal.journal import Settled
from metering.pricing.tokens import Usage
from metering.quota.counters import HELD, WindowState
from metering.quota.query import Grant
from metering.reconciliation.drifts import REDIS
from metering.reconciliation.reconcile import Scope, reconcile
from metering.reconciliation.redis_check import RedisCheck
from metering.reconciliation.repair import drop_counters
from sandbox.daemon import free_port
from tests.harness import Account, Books
from tests.metering.process import Process
from tests.metering.proof import OPERATOR, audited, check, everything, found, three_users, traffic
from tests.metering.rows import settlement


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays is found sooner; what is in flight here is shorter still."""
    monkeypatch.setattr("metering.reconciliation.redis_check._PAUSE_S", 0.05)


@pytest.fixture
async def accounts(books: Books) -> list[Account]:
    return await three_users(books)


@pytest.fixture
async def tenant_id(process: Process, accounts: list[Account]) -> UUID:
    """The accounts' tenant, after some traffic."""
    await traffic(process, accounts, random.Random(17), 15)
    return accounts[0].tenant_id


@pytest.mark.slow
async def test_what_happens_between_the_two_readings_is_no_drift(
    process: Process, accounts: list[Account], tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [await process.admit(accounts[0]) for _ in range(4)]
    compare = RedisCheck._against_postgres

    async def after_others(*arguments: Any) -> Any:
        """Redis was read: now a request that it held for is settled, and another comes, and is settled as well."""
        await process.settle(running.pop(), Usage(1, 2, 3, 4, 5))
        await process.settle(await process.admit(accounts[0]), Usage(5, 4, 3, 2, 1))
        await process.admit(accounts[0])
        return await compare(*arguments)

    monkeypatch.setattr(RedisCheck, "_against_postgres", after_others)
    monkeypatch.setattr("metering.reconciliation.redis_check._TRIES", 2)  # the hold goes by; a wrong sum would stay
    run = await check(process, tenant_id)
    assert (found(run), running) == ({}, []), run.as_json()


@pytest.mark.slow
async def test_a_hash_that_was_only_built_is_no_drift(
    process: Process, accounts: list[Account], tenant_id: UUID
) -> None:
    await process.pipeline.command("DEL", tenant_key(tenant_id))
    await process.rebuilder.rebuild_tenant(tenant_id, 0)
    assert found(await check(process, tenant_id)) == {}
    await process.admit(accounts[1])
    assert found(await check(process, tenant_id)) == {}


@pytest.fixture
async def held(process: Process, accounts: list[Account], tenant_id: UUID) -> AsyncIterator[Grant]:
    """A request of the first user that runs."""
    assert tenant_id == accounts[0].tenant_id
    grant = await process.admit(accounts[0])
    yield grant
    await process.settle(grant, Usage())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whose", "window", "count"),
    [("the tenant", "d", 2), ("the tenant", "p", 11), ("the user", "d", 12), ("the user", "p", 7)],
)
async def test_a_wrong_window_in_redis_is_named_and_rebuilt(
    process: Process,
    books: Books,
    held: Grant,
    whose: str,
    window: str,
    count: int,
) -> None:
    request, of_user = held.request, whose == "the user"
    name = f"d:{request.day}" if window == "d" else f"p:{request.period_id}"
    key = user_key(request.tenant_id, request.user_id) if of_user else tenant_key(request.tenant_id)
    state = WindowState.unpack(await process.pipeline.command("HGET", key, name))
    numbers = [*state.used, *state.held]
    numbers[count] += 11
    changed = WindowState(tuple(numbers[: -len(HELD)]), tuple(numbers[-len(HELD) :]))
    await process.pipeline.command("HSET", key, name, changed.pack())
    before = await everything(books, request.tenant_id)
    run = await check(process, request.tenant_id)
    assert found(run) == {REDIS: 1}
    (drift,) = run.checks[REDIS].drifts
    assert drift.difference == {[*COUNT_COLUMNS, *HELD][count]: 11}
    assert drift.subject == {"of": f"user {request.user_id}" if of_user else "the tenant", "window": name}

    await drop_counters(process.pool, OPERATOR, request.tenant_id, run.checks[REDIS].drifts)
    assert found(await check(process, request.tenant_id)) == {}
    assert await everything(books, request.tenant_id) == before
    assert await audited(books, request.tenant_id) == ["usage.rebuild_counters"]
    again = await process.admit(Account(request.tenant_id, request.user_id, request.key_id, ""))
    assert again.request.epoch > request.epoch
    assert found(await check(process, request.tenant_id)) == {}


@pytest.mark.slow
async def test_a_hold_that_nobody_owns_is_named(process: Process, books: Books, held: Grant) -> None:
    request = held.request
    await books.fetch("DELETE FROM usage_requests WHERE tenant_id = $1 AND id = $2", request.tenant_id, request.id)
    run = await check(process, request.tenant_id)
    assert found(run) == {REDIS: 2}
    for drift in run.checks[REDIS].drifts:
        assert (drift.subject["hold"], drift.subject["request"]) == (str(request.id), "unknown")
        assert drift.difference["held_requests"] == 1


@pytest.mark.slow
async def test_a_hold_that_is_lost_is_named(process: Process, held: Grant) -> None:
    request = held.request
    await process.pipeline.command("HDEL", tenant_key(request.tenant_id), f"h:{request.id.hex}")
    run = await check(process, request.tenant_id)
    subjects = [drift.subject for drift in run.checks[REDIS].drifts]
    assert {"of": "the tenant", "hold": str(request.id), "request": "open"} in subjects
    assert {"of": "the tenant", "concurrency": "running"} in subjects
    assert {subject["of"] for subject in subjects} == {"the tenant"}


@pytest.mark.slow
async def test_the_hold_of_a_settled_request_is_a_drift_unless_it_is_kept(
    process: Process, books: Books, held: Grant
) -> None:
    request = held.request
    assert await process.journal.settlements.submit(settlement(request)) is Settled.NOW  # Redis is not told
    run = await check(process, request.tenant_id)
    assert [drift.subject["request"] for drift in run.checks[REDIS].drifts] == ["settled"] * 2
    await books.fetch(
        "UPDATE usage_requests SET hold_until = deadline_at WHERE tenant_id = $1 AND id = $2",
        request.tenant_id,
        request.id,
    )
    assert found(await check(process, request.tenant_id)) == {}


async def test_redis_away_is_said_and_no_drift(process: Process, tenant_id: UUID) -> None:
    lane = RedisPipeline(f"redis://127.0.0.1:{free_port()}", timeout_s=0.5)
    lane.start()
    run = await reconcile(process.pool, QuotaScripts(lane), Scope((tenant_id,)))
    await lane.stop()
    assert (run.drifts, run.whole) == (0, False)
    assert run.checks[REDIS].not_done
    without = await reconcile(process.pool, None, Scope((tenant_id,)))
    assert (without.drifts, without.whole) == (0, True)


async def test_a_hold_that_has_lapsed_waits_for_the_next_request_and_is_no_drift(
    start: Callable[..., Awaitable[Process]], books: Books, accounts: list[Account]
) -> None:
    process = await start(ttl_ms=100)
    request = (await process.admit(accounts[0])).request
    await books.fetch("DELETE FROM usage_requests WHERE tenant_id = $1 AND id = $2", request.tenant_id, request.id)
    await asyncio.sleep(max(0, request.deadline_ms + 10 - now_ms()) / 1000)
    assert found(await check(process, request.tenant_id)) == {}


@pytest.mark.slow
async def test_what_redis_says_does_not_matter_while_postgres_admits(
    process: Process, books: Books, tenant_id: UUID
) -> None:
    await process.pipeline.command("HSET", tenant_key(tenant_id), "c", 40)
    assert found(await check(process, tenant_id)) == {REDIS: 1}
    await books.fetch("UPDATE tenant_epochs SET fallback_until = now() WHERE tenant_id = $1", tenant_id)
    assert found(await check(process, tenant_id)) == {}
