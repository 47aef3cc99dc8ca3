"""The store of runs in a real Redis: one owner, a fence, bounds that add up, and steps that may be repeated."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from api.gateway.idempotency.errors import IdempotencyConflict, IdempotencyFull, IdempotencyMismatch
from api.gateway.idempotency.keys import Entry, entry_of, new_run
from api.gateway.idempotency.store import RUN_BYTES, End, Kept, RunStore, State
from core.ids import uuid7
from tests.api.gateway.idempotency.conftest import ANSWER, LEASE_S


def entry(key: bytes = b"k", body: bytes = b"", tenant_id: UUID | None = None) -> Entry:
    scope: dict[str, Any] = {"method": "POST", "path": "/chat", "query_string": b"", "headers": []}
    return entry_of(key, "credential", scope, body, tenant_id=tenant_id or uuid7(), user="u")


async def test_of_many_claims_one_wins(stores: tuple[RunStore, RunStore]) -> None:
    one = entry()
    runs = [new_run() for _ in range(100)]
    owners = await asyncio.gather(*(stores[n % 2].claim(one, run) for n, run in enumerate(runs)))
    assert len(set(owners)) == 1
    assert owners[0] in runs
    assert await stores[0].claim(one, "") == owners[0]
    assert await stores[0].claim(entry(), "") is None


@pytest.mark.slow
async def test_a_lease_that_is_not_extended_is_taken_over_and_its_owner_fenced(
    stores: tuple[RunStore, RunStore],
) -> None:
    one, first, second = entry(), new_run(), new_run()
    assert await stores[0].claim(one, first) == first
    for number in range(3):  # extended
        await asyncio.sleep(LEASE_S / 2)
        assert await stores[0].append(one, first, number, [b"item"]) is Kept.KEPT
    assert await stores[1].claim(one, second) == first
    assert (await stores[1].read(one, first, 0))[0] is State.LIVE

    await asyncio.sleep(1.5 * LEASE_S)
    assert (await stores[1].read(one, first, 0))[0] is State.DEAD
    assert await stores[1].claim(one, second) == second
    for ending in End:
        assert await stores[0].append(one, first, 3, [b"late"], end=ending) is Kept.LOST
    assert await stores[1].read(one, first, 3) == (State.DEAD, [])
    assert await stores[1].append(one, second, 0, [b"new"], end=End.KEEP) is Kept.KEPT
    assert await stores[0].read(one, second, 0) == (State.DONE, [b"new"])


async def test_a_repeated_step_changes_nothing(stores: tuple[RunStore, RunStore], redis: "Redis") -> None:
    one, run = entry(), new_run()
    for _ in range(2):
        assert await stores[0].claim(one, run) == run
    for _ in range(2):
        assert await stores[0].append(one, run, 0, [b"a", b"b"]) is Kept.KEPT
    for _ in range(2):
        assert await stores[0].append(one, run, 1, [b"b", b"c"], end=End.KEEP) is Kept.KEPT
    assert await stores[1].read(one, run, 0) == (State.DONE, [b"a", b"b", b"c"])
    assert await stores[1].read(one, run, 2) == (State.DONE, [b"c"])
    assert await _total(redis, one) == RUN_BYTES + 3
    await asyncio.sleep(1.5 * LEASE_S)
    assert await stores[1].claim(one, new_run()) == run, "a finished answer has no lease"


async def test_another_request_is_told_apart(stores: tuple[RunStore, RunStore]) -> None:
    one = entry(tenant_id=UUID(int=7), key=new_run().encode())
    run, second = new_run(), new_run()
    assert await stores[0].claim(one, run) == run
    other = Entry(one.tenant, one.name, b"another", b"")
    for asked in (new_run(), ""):
        with pytest.raises(IdempotencyMismatch):
            await stores[1].claim(other, asked)
    await stores[0].append(one, run, 0, [], end=End.FREE)
    assert await stores[1].claim(other, second) == second


async def test_the_bytes_of_an_answer_and_of_a_tenant(stores: tuple[RunStore, RunStore], redis: "Redis") -> None:
    tenant_id = uuid7()
    first, second, third = (entry(key, tenant_id=tenant_id) for key in (b"1", b"2", b"3"))
    runs = [new_run() for _ in range(4)]

    assert await stores[0].claim(first, runs[0]) == runs[0]
    assert await stores[0].append(first, runs[0], 0, [b"x" * ANSWER]) is Kept.KEPT
    assert await stores[0].append(first, runs[0], 1, [b"x"]) is Kept.LARGE
    assert await stores[1].read(first, runs[0], 0) == (State.LARGE, [])
    with pytest.raises(IdempotencyConflict, match="too large"):
        await stores[1].claim(first, new_run())
    assert await _total(redis, first) == RUN_BYTES

    assert await stores[0].claim(second, runs[1]) == runs[1]
    assert await stores[0].append(second, runs[1], 0, [b"x" * ANSWER], end=End.KEEP) is Kept.KEPT
    assert await stores[0].claim(third, runs[2]) == runs[2]
    assert await stores[0].append(third, runs[2], 0, [b"x" * ANSWER]) is Kept.LARGE, "the tenant's bytes"
    assert await _total(redis, third) == 3 * RUN_BYTES + ANSWER
    with pytest.raises(IdempotencyFull) as refused:
        await stores[0].claim(entry(b"4", tenant_id=tenant_id), runs[3])
    assert 50 <= refused.value.retry_after_s <= 700
    assert await stores[0].claim(second, new_run()) == runs[1], "what is stored is replayed"
    assert await stores[0].append(third, runs[2], 0, [], end=End.FREE) is Kept.KEPT
    assert await stores[0].claim(third, "") is None


async def test_bytes_are_given_back_when_runs_expire(stores: tuple[RunStore, RunStore], redis: "Redis") -> None:
    tenant_id = uuid7()
    for number in range(3):
        one, run = entry(b"%d" % number, tenant_id=tenant_id), new_run()
        assert await stores[0].claim(one, run) == run
        assert await stores[0].append(one, run, 0, [b"x" * 500], end=End.KEEP) is Kept.KEPT
    for member in await redis.zrange(f"{one.tenant}:expiry", 0, 1):
        assert isinstance(member, bytes)
        await redis.zadd(f"{one.tenant}:expiry", {member: 1})
    last = entry(b"last", tenant_id=tenant_id)
    run = new_run()
    assert await stores[0].claim(last, run) == run
    assert await _total(redis, last) == RUN_BYTES + 500 + RUN_BYTES
    assert await redis.hlen(f"{last.tenant}:bytes") == 3


async def test_a_run_whose_items_are_lost_ends(stores: tuple[RunStore, RunStore], redis: "Redis") -> None:
    one, run = entry(), new_run()
    await stores[0].claim(one, run)
    await stores[0].append(one, run, 0, [b"a"])
    await redis.delete(f"{one.name}:{run}")
    assert await stores[0].append(one, run, 1, [b"b"]) is Kept.LOST
    again = new_run()
    assert await stores[1].claim(one, again) == again


async def test_a_process_that_reads_is_told_of_more(stores: tuple[RunStore, RunStore]) -> None:
    one, run, told = entry(), new_run(), list[str | None]()
    stores[1].on_news = told.append
    await stores[0].claim(one, run)
    await stores[0].append(one, run, 0, [b"a"])
    await _until(lambda: None in told)  # it listens
    assert run not in told, "it follows nothing yet"
    assert await stores[1].read(one, run, 0) == (State.LIVE, [b"a"])
    await stores[0].append(one, run, 1, [])
    await stores[0].append(one, run, 1, [b"b"], end=End.KEEP)
    await _until(lambda: run in told)
    assert told.count(run) == 1


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


async def _total(redis: "Redis", one: Entry) -> int:
    return int(await redis.hget(f"{one.tenant}:bytes", "total") or 0)
