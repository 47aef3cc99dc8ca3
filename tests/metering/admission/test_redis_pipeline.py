"""The Redis pipeline when its server is slow, down or restarted, and when the process stops."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from core.errors import Unavailable
from core.ids import uuid7
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from sandbox.valkey import Valkey


@pytest.fixture
async def lane_of() -> AsyncIterator[Callable[[str, float], RedisPipeline]]:
    """Starts a committer with a URL and a time-out in seconds."""
    lanes: list[RedisPipeline] = []

    def make(url: str, timeout_s: float) -> RedisPipeline:
        lane = RedisPipeline(url, timeout_s=timeout_s)
        lanes.append(lane)
        lane.start()
        return lane

    yield make
    for lane in lanes:
        await lane.stop()


async def test_answers_come_in_the_order_of_the_questions(quota: QuotaScripts) -> None:
    answers = await asyncio.gather(*(quota.pipeline.command("ECHO", str(index)) for index in range(700)))
    assert answers == [str(index).encode() for index in range(700)]


async def test_a_script_that_the_server_forgot_is_loaded_again(quota: QuotaScripts, redis_url: str) -> None:
    for _ in range(2):
        async with Redis.from_url(redis_url) as redis:
            await redis.script_flush()
        settles = [quota.settle(uuid7(), uuid7(), uuid7(), (0,) * 9) for _ in range(20)]
        mixed = await asyncio.gather(quota.pipeline.command("ECHO", "a"), *settles, quota.pipeline.command("ECHO", "b"))
        assert mixed == [b"a", *[0] * 20, b"b"]


async def test_a_command_that_redis_refuses_fails_alone(quota: QuotaScripts) -> None:
    answers = await asyncio.gather(
        quota.pipeline.command("ECHO", "a"),
        quota.pipeline.command("NOSUCH"),
        quota.pipeline.command("ECHO", "b"),
        return_exceptions=True,
    )
    assert (answers[0], answers[2]) == (b"a", b"b")
    assert isinstance(answers[1], Exception)


async def test_away_is_unavailable_and_back_is_back(
    private_valkey: Callable[..., Valkey], lane_of: Callable[[str, float], RedisPipeline]
) -> None:
    server = private_valkey()
    lane = lane_of(server.url, 5)
    first = await lane.connect()
    server.stop()
    with pytest.raises(Unavailable):
        await lane.command("PING")
    assert lane.run_id == ""
    with pytest.raises(Unavailable):
        await lane.connect()
    server.start()
    assert await lane.connect() not in ("", first)
    assert await lane.command("ECHO", "a") == b"a"


async def test_a_late_answer_is_nobodys(
    private_valkey: Callable[..., Valkey], lane_of: Callable[[str, float], RedisPipeline]
) -> None:
    server = private_valkey()
    lane = lane_of(server.url, 0.2)
    await lane.connect()
    server.pause()
    with pytest.raises(Unavailable):
        await lane.command("ECHO", "late")
    server.resume()
    answer = None
    for _ in range(20):  # a busy machine may be late once more
        answer = answer or await _echo(lane, "in time")
    assert answer == b"in time"


async def test_a_pipeline_has_one_deadline_for_all_its_answers(
    redis_url: str, lane_of: Callable[[str, float], RedisPipeline]
) -> None:
    """A server that answers each command just in time would hold up the requests for as long as there are commands."""
    lane = lane_of(redis_url, 0.5)
    await lane.connect()
    slow = [lane.command("BLPOP", f"empty-{number}", 0.4) for number in range(20)]
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*slow, return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers[1:])


async def test_a_server_that_accepts_and_says_nothing_is_unavailable(
    lane_of: Callable[[str, float], RedisPipeline],
) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silence, "127.0.0.1", 0) as server:
        lane = lane_of(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", 0.2)
        with pytest.raises(Unavailable):
            async with asyncio.timeout(5):
                await lane.connect()
        await lane.stop()


async def test_an_argument_that_cannot_be_sent_fails_its_pipeline_and_no_later_one(
    redis_url: str, lane_of: Callable[[str, float], RedisPipeline]
) -> None:
    lane = lane_of(redis_url, 5)
    for wrong in (None, "\ud800"):
        with pytest.raises(Unavailable):
            await lane.command("ECHO", wrong)
    assert await lane.command("ECHO", "a") == b"a"


async def _echo(lane: RedisPipeline, word: str) -> bytes | None:
    """The answer, if it came in time."""
    try:
        said: bytes = await lane.command("ECHO", word)
    except Unavailable:
        return None
    return said


@pytest.mark.parametrize("queued", [0, 3])
async def test_a_lane_that_stops_finishes_what_is_on_its_way_and_what_waits(redis_url: str, queued: int) -> None:
    lane = RedisPipeline(redis_url, timeout_s=5)
    lane.start()
    await lane.connect()
    answers = [lane.command("ECHO", "0")]
    await asyncio.sleep(0)
    assert not lane._waiting
    answers += [lane.command("ECHO", str(index + 1)) for index in range(queued)]
    await lane.stop()
    assert all(answer.done() and not answer.cancelled() for answer in answers)
    assert [await answer for answer in answers] == [str(index).encode() for index in range(queued + 1)]


@pytest.mark.parametrize("after_steps", range(0, 40, 3))
async def test_a_lane_stops_at_any_step_of_its_connecting(redis_url: str, after_steps: int) -> None:
    lane = RedisPipeline(redis_url, timeout_s=5, probe_s=0)
    lane.start()
    for _ in range(after_steps):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await lane.stop()
