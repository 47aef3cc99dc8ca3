"""Turns of owners: bounded per owner, in order, and independent of other owners."""

import asyncio

import pytest

from core.resilience.shares import PoolFull
from core.resilience.turns import Turns


async def test_an_owner_runs_a_few_tasks_at_once_in_the_order_of_their_arrival() -> None:
    turns, order, running, most = Turns("test", 2, wait_s=5), [], 0, 0

    async def work(number: int) -> None:
        nonlocal running, most
        end = await turns.take("one")
        order.append(number)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        end()

    await asyncio.gather(*(work(number) for number in range(20)))
    assert order == list(range(20))
    assert most == 2
    assert len(turns) == 0


async def test_another_owner_does_not_wait() -> None:
    turns = Turns("test", 1, wait_s=5)
    end_one = await turns.take("one")
    async with asyncio.timeout(0.5):
        end_two = await turns.take("two")
    end_one()
    end_two()


async def test_a_turn_ends_once_however_often_it_is_ended() -> None:
    turns = Turns("test", 1, wait_s=0.05)
    first = await turns.take("one")
    first()
    first()
    second = await turns.take("one")
    with pytest.raises(PoolFull):
        await turns.take("one")
    second()
    assert len(turns) == 0


async def test_a_task_that_gives_up_leaves_its_place_in_the_queue() -> None:
    turns = Turns("test", 1, wait_s=5)
    end = await turns.take("one")
    waiting = asyncio.create_task(turns.take("one"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    end()
    assert len(turns) == 0
    async with asyncio.timeout(0.5):
        (await turns.take("one"))()
