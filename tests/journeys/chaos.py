"""The town of the chaos journey: servers that are harmed by a seeded schedule, and clients that behave badly.

Everything drawn comes from one seed; what the machine's timing makes of it differs from run to run. Nothing here
asserts; it keeps what the clients saw, for the story to compare with the books.
"""

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from sandbox.daemon import free_port
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests import servers
from tests.harness import Account, Api, Simulator, client, environment, parse_sse, scripted

APIS = 3
SETTINGS = {
    "HEARTBEAT_S": "0.3",
    "DEAD_AFTER_S": "3",
    "STORE_DEADLINE_S": "2.5",
    "REQUEST_DEADLINE_S": "12",
    "SHUTDOWN_DRAIN_S": "0.1",
    "SHUTDOWN_GRACE_S": "2",
    "DIRECTORY_TTL_S": "1",
    "UPSTREAM_RETRIES": "1",
}


@dataclass
class Seen:
    """What a client saw of one request. `request_id` is None where no head arrived."""

    account: Account
    ref: str
    status: int | None = None
    request_id: str | None = None
    code: str | None = None
    done: bool = False
    left: bool = False


@dataclass
class Town:
    """All of it, running."""

    postgres: Postgres
    valkey: Valkey
    simulator: Simulator
    folder: Path
    draw: random.Random
    apis: list[Api] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    harm: list[str] = field(default_factory=list)

    def start_api(self, port: int | None = None) -> Api:
        """One more process; all share a spool folder, as on one host."""
        settings = SETTINGS | {"SPOOL_DIR": str(self.folder / "spool")}
        known = environment(servers.application(self.postgres.url), self.valkey.url, self.simulator.url, **settings)
        return Api(known, self.folder / f"api-{port}.log", port=port)

    async def replace(self, index: int, end: Callable[[Api], Any]) -> None:
        """Ends a process in some way, and starts another on its port."""
        old = self.apis[index]
        await asyncio.to_thread(end, old)
        self.apis[index] = self.start_api(old.port)

    async def ready(self) -> None:
        """Returns once every process answers; starts again those that could not start without Postgres."""
        for index in range(len(self.apis)):
            try:
                await asyncio.to_thread(self.apis[index].await_ready)
            except AssertionError:
                self.apis[index] = self.start_api(self.apis[index].port)
                await asyncio.to_thread(self.apis[index].await_ready)


@asynccontextmanager
async def town(
    postgres: Postgres, valkey: Valkey, simulator: Simulator, folder: Path, seed: int
) -> AsyncIterator[Town]:
    """Three processes on one Postgres and one Redis."""
    made = Town(postgres, valkey, simulator, folder, random.Random(seed))
    made.apis = [made.start_api(free_port()) for _ in range(APIS)]
    try:
        await made.ready()
        yield made
    finally:
        for api in made.apis:
            if api.process.poll() is None:
                api.kill()


# ------------------------------------------------------------------------------------------------- the clients


def a_script(draw: random.Random) -> dict[str, Any]:
    """What the provider is told to do: mostly well, at some length."""
    script: dict[str, Any] = {"words": draw.randint(1, 120), "piece_delay_ms": draw.choice((0, 2, 10, 25))}
    match draw.randrange(12):
        case 0:
            script["error_after"] = draw.randint(0, 20)
        case 1:
            script["cut_after"] = draw.randint(0, 20)
        case 2:
            script["end_after"] = draw.randint(0, 20)
        case 3:
            script["status"] = draw.choice((529, 500, 400))
        case 4:
            script["head_delay_ms"] = draw.choice((100, 1_500))
        case 5:
            script["refusal"] = draw.choice(("empty", "partial"))
        case _:
            pass
    return script


async def live(town: Town, account: Account, seed: int, until: float, *, cached: bool) -> None:
    """One client: asks again and again, somewhere; now and then it leaves before the end."""
    draw = random.Random(seed)
    number = 0
    while time.monotonic() < until:
        number += 1
        seen = Seen(account, f"{seed}-{number}")
        town.seen.append(seen)
        script = a_script(draw)
        if cached:
            script |= {"cache_read_input_tokens": draw.randint(0, 90), "cache_creation_5m": draw.randint(0, 90)}
            script |= {"cache_creation_1h": draw.randint(0, 90)}
        leaves_after = draw.randint(0, 600) if draw.random() < 0.2 else None
        api = draw.choice(town.apis)
        with suppress(httpx2.HTTPError, OSError, TimeoutError):
            async with asyncio.timeout(25):
                await ask(api, seen, scripted(ref=seen.ref, **script), leaves_after)
        await asyncio.sleep(draw.random() * 0.1)


async def ask(api: Api, seen: Seen, message: str, leaves_after: int | None) -> None:
    """One request; with `leaves_after` the socket is closed after so many bytes."""
    async with (
        client(api.url) as http,
        http.stream("POST", "/chat", json={"message": message}, headers=seen.account.headers) as response,
    ):
        seen.status = response.status_code
        seen.request_id = response.headers.get("x-request-id")
        body = b""
        async for chunk in response.aiter_raw():
            body += chunk
            if leaves_after is not None and len(body) > leaves_after:
                seen.left = True
                return
        if response.status_code != httpx2.codes.OK:
            seen.code = json.loads(body).get("code") if body else None
        seen.done = seen.status == httpx2.codes.OK and ("done", "") in parse_sse(body)


# --------------------------------------------------------------------------------------------------- the harm


async def harm(town: Town, until: float) -> None:
    """One blow after the other, with a breath in between, so that something also goes well."""
    blows: list[Callable[[Town], Awaitable[None]]] = [
        kill_api,
        kill_api,
        restart_api,
        stop_postgres,
        crash_postgres,
        flush_redis,
        stop_redis,
        pause_redis,
        pause_api,
        cut_connections,
    ]
    order = [blow for _ in range(40) for blow in town.draw.sample(blows, len(blows))]
    for blow in order:
        if time.monotonic() > until:
            return
        town.harm.append(blow.__name__)
        await blow(town)
        await asyncio.sleep(town.draw.uniform(0.3, 1.2))


async def kill_api(town: Town) -> None:
    """SIGKILL, and another in its place."""
    await town.replace(town.draw.randrange(APIS), Api.kill)


async def restart_api(town: Town) -> None:
    """SIGTERM, as in a rolling restart."""
    await town.replace(town.draw.randrange(APIS), Api.stop)


async def pause_api(town: Town) -> None:
    """A long sleep: longer than it takes to be given up."""
    api = town.draw.choice(town.apis)
    api.process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(town.draw.choice((0.5, 4.5)))
    finally:
        api.process.send_signal(signal.SIGCONT)


async def stop_postgres(town: Town) -> None:
    """A clean stop, a pause, a start."""
    await asyncio.to_thread(town.postgres.stop)
    await asyncio.sleep(town.draw.uniform(0, 2))
    await asyncio.to_thread(town.postgres.start)


async def crash_postgres(town: Town) -> None:
    """The plug, and the recovery from the log."""
    await asyncio.to_thread(town.postgres.kill)
    await asyncio.to_thread(town.postgres.start)


async def cut_connections(town: Town) -> None:
    """Every connection to Postgres is cut, wherever it is in its work."""
    await _execute(town, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'naka%'")


async def flush_redis(town: Town) -> None:
    """Everything Redis knew is gone."""
    connection = await asyncio.to_thread(_redis, town)
    await asyncio.to_thread(connection.flushall)
    connection.close()


async def stop_redis(town: Town) -> None:
    """Away, then back and empty."""
    await asyncio.to_thread(town.valkey.kill)
    await asyncio.sleep(town.draw.uniform(0.2, 3))
    await asyncio.to_thread(town.valkey.start)


async def pause_redis(town: Town) -> None:
    """It hangs, then goes on with what it was sent meanwhile."""
    town.valkey.pause()
    try:
        await asyncio.sleep(town.draw.uniform(0.2, 3))
    finally:
        town.valkey.resume()


def _redis(town: Town) -> Any:
    import redis  # noqa: PLC0415 - the synchronous client, for one command

    return redis.Redis.from_url(town.valkey.url)


async def _execute(town: Town, statement: str) -> None:
    import asyncpg  # noqa: PLC0415

    connection = await asyncpg.connect(town.postgres.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
