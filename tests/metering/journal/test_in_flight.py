"""The list of what this process runs."""

import asyncio

import pytest

from core.ids import uuid7
from metering.journal.in_flight import InFlight
from metering.journal.recorder import UsageRecorder


async def test_who_enters_is_listed_until_it_leaves() -> None:
    running, first, second = InFlight(), uuid7(), uuid7()
    recorder = UsageRecorder(0, 0)
    await running.emptied()
    running.enter(first)
    running.record(second, recorder)  # Postgres may admit without an enter of ours
    assert (first in running, second in running, uuid7() in running, len(running)) == (True, True, False, 2)
    for request_id, known in running:  # and may be changed meanwhile
        assert known is (recorder if request_id == second else None)
        running.leave(request_id)
    running.leave(first)
    assert (first in running, len(running)) == (False, 0)
    await running.emptied()


async def test_emptied_waits_for_the_last() -> None:
    running, ids = InFlight(), [uuid7() for _ in range(3)]
    for request_id in ids:
        running.enter(request_id)
    waiting = asyncio.create_task(running.emptied())
    for request_id in ids:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.01)
        running.leave(request_id)
    await asyncio.wait_for(waiting, 10)
