"""Fair shares: half of a pool for one owner, room for newcomers, round-robin service, and no leaks."""

import asyncio
from contextlib import ExitStack

import pytest

from core.resilience.shares import FairPool, PoolFull


def fill(pool: FairPool, owner: str, held: ExitStack) -> int:
    """Takes places until refused, and returns their number."""
    taken = 0
    while True:
        try:
            held.enter_context(pool.take(owner))
        except PoolFull:
            return taken
        taken += 1


def test_one_owner_alone_gets_half_and_a_newcomer_half_of_the_rest() -> None:
    pool = FairPool("test", 1000)
    with ExitStack() as held:
        assert fill(pool, "greedy", held) == 500
        assert fill(pool, "second", held) == 250
        assert fill(pool, "third", held) == 125
        assert (pool.taken, pool.refused, pool.owners) == (875, 3, 3)
    assert (pool.taken, pool.owners) == (0, 0)


def test_as_many_owners_as_there_are_places_all_get_one() -> None:
    pool = FairPool("test", 8)
    with ExitStack() as held:
        for number in range(8):
            held.enter_context(pool.take(number))
        with pytest.raises(PoolFull), pool.take("one more"):
            pass


def test_a_place_comes_back_however_its_block_ends() -> None:
    pool = FairPool("test", 2)
    with pytest.raises(ZeroDivisionError), pool.take("one"):
        raise ZeroDivisionError
    assert (pool.taken, pool.owners) == (0, 0)


async def test_owners_are_served_in_turn_and_each_in_the_order_in_which_it_came() -> None:
    pool, order = FairPool("test", 2, max_waiting=64, wait_s=5), []

    async def work(owner: str, number: int) -> None:
        async with pool.wait(owner):
            order.append((owner, number))
            await asyncio.sleep(0)

    # Another tenant asks after 20 of the first are in the line, and waits for one of them at most.
    first = [asyncio.create_task(work("greedy", number)) for number in range(20)]
    await asyncio.sleep(0)
    second = [asyncio.create_task(work("modest", number)) for number in range(2)]
    await asyncio.gather(*first, *second)
    assert [number for owner, number in order if owner == "greedy"] == list(range(20))
    assert max(order.index(("modest", number)) for number in range(2)) < 8
    assert (pool.taken, pool.owners, pool.refused) == (0, 0, 0)


async def test_a_wait_ends_at_its_deadline() -> None:
    pool = FairPool("test", 2, max_waiting=8, wait_s=0.05)
    async with pool.wait("one"):
        with pytest.raises(PoolFull) as full:
            async with pool.wait("one"):
                pass
        assert (full.value.pool, full.value.retry_after_s, pool.refused) == ("test", 1, 1)
        async with pool.wait("other"):
            assert pool.taken == 2
    assert (pool.taken, pool.owners) == (0, 0)


async def test_one_owner_alone_does_not_fill_the_line() -> None:
    pool = FairPool("test", 2, max_waiting=8, wait_s=5)

    async def work(owner: str) -> None:
        async with pool.wait(owner):
            await gate.wait()

    gate = asyncio.Event()
    tasks = [asyncio.create_task(work("greedy")) for _ in range(40)]
    await asyncio.sleep(0)
    assert sum(isinstance(task.exception(), PoolFull) for task in tasks if task.done()) == 35, "1 works, 4 wait"
    other = asyncio.create_task(work("other"))
    await asyncio.sleep(0)
    assert pool.held_by("other") == 1
    waits = asyncio.create_task(work("other"))
    await asyncio.sleep(0)
    assert not waits.done()
    gate.set()
    await asyncio.gather(other, waits)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (pool.taken, pool.owners) == (0, 0)


async def test_those_who_give_up_at_any_moment_leave_no_place_and_no_gap_behind() -> None:
    pool, served = FairPool("test", 2, max_waiting=1000, wait_s=5), 0

    async def work(owner: int) -> None:
        nonlocal served
        async with pool.wait(owner):
            served += 1
            await asyncio.sleep(0)

    for step in range(30):
        tasks = [asyncio.create_task(work(number % 3)) for number in range(12)]
        for _ in range(step % 6):
            await asyncio.sleep(0)
        for task in tasks[step % 4 :: 3]:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert (pool.taken, pool.owners) == (0, 0)
    assert served > 100


async def test_one_who_comes_behind_one_who_just_gave_up_does_not_wait_for_nothing() -> None:
    pool = FairPool("test", 2, max_waiting=8, wait_s=5)

    async def work() -> None:
        async with pool.wait("one"):
            raise AssertionError("it gave up")

    with pool.take("one"):
        gives_up = asyncio.create_task(work())
        await asyncio.sleep(0)
        gives_up.cancel()
    async with asyncio.timeout(1), pool.wait("one"):
        assert pool.taken == 1
    assert (pool.taken, pool.owners) == (0, 0)
