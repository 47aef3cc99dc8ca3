"""The setup of the chaos journey: servers disturbed by a seeded schedule, and misbehaving clients.

One seed determines every random choice; timing differs between runs. Nothing here asserts; it records what the clients
received, for the test to compare with the accounts.
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
from tests.answers import parse_sse
from tests.harness import Account, Api, Simulator, client, environment, scripted

APIS = 3
ENOUGH_DONE = 20
LONGER_S = 40
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
    """One request as a client saw it. `request_id` is None when no head arrived."""

    account: Account
    ref: str
    status: int | None = None
    request_id: str | None = None
    code: str | None = None
    done: bool = False
    left: bool = False


@dataclass
class Setup:
    """The running servers, and the record of the run."""

    postgres: Postgres
    valkey: Valkey
    simulator: Simulator
    folder: Path
    draw: random.Random
    apis: list[Api] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    harm: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many answers arrived whole."""
        return sum(seen.done for seen in self.seen)

    def start_api(self, port: int | None = None) -> Api:
        """Starts another process; all share a spool folder, as on one host."""
        settings = SETTINGS | {"SPOOL_DIR": str(self.folder / "spool")}
        known = environment(servers.application(self.postgres.url), self.valkey.url, self.simulator.url, **settings)
        return Api(known, self.folder / f"api-{port}.log", port=port)

    async def replace(self, index: int, end: Callable[[Api], Any]) -> None:
        """Ends a process with `how`, and starts another on its port."""
        old = self.apis[index]
        await asyncio.to_thread(end, old)
        self.apis[index] = self.start_api(old.port)

    async def ready(self) -> None:
        """Returns once every process answers; restarts those that could not start without Postgres."""
        for index in range(len(self.apis)):
            try:
                await asyncio.to_thread(self.apis[index].await_ready)
            except AssertionError:
                self.apis[index] = self.start_api(self.apis[index].port)
                await asyncio.to_thread(self.apis[index].await_ready)


@asynccontextmanager
async def setup(
    postgres: Postgres, valkey: Valkey, simulator: Simulator, folder: Path, seed: int
) -> AsyncIterator[Setup]:
    """Starts three processes on one Postgres and one Redis."""
    made = Setup(postgres, valkey, simulator, folder, random.Random(seed))
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
    """Returns the provider's script: mostly a long successful answer."""
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


async def live(setup: Setup, account: Account, seed: int, until: float, *, cached: bool) -> None:
    """Runs one client: it sends requests to random processes, and sometimes disconnects early.

    It goes on after `until` while hardly anything went well: the books of a slow machine are to be checked, too.
    """
    draw = random.Random(seed)
    number = 0
    while (now := time.monotonic()) < until or (setup.done < ENOUGH_DONE and now < until + LONGER_S):
        number += 1
        seen = Seen(account, f"{seed}-{number}")
        setup.seen.append(seen)
        script = a_script(draw)
        if cached:
            script |= {"cache_read_input_tokens": draw.randint(0, 90), "cache_creation_5m": draw.randint(0, 90)}
            script |= {"cache_creation_1h": draw.randint(0, 90)}
        leaves_after = draw.randint(0, 600) if draw.random() < 0.2 else None
        api = draw.choice(setup.apis)
        with suppress(httpx2.HTTPError, OSError, TimeoutError):
            async with asyncio.timeout(25):
                await ask(api, seen, scripted(ref=seen.ref, **script), leaves_after)
        await asyncio.sleep(draw.random() * 0.1)


async def ask(api: Api, seen: Seen, message: str, leaves_after: int | None) -> None:
    """Sends one request; with `leaves_after` it closes the socket after so many bytes."""
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


async def harm(setup: Setup, until: float) -> None:
    """Applies one failure after another, with short pauses."""
    blows: list[Callable[[Setup], Awaitable[None]]] = [
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
    order = [blow for _ in range(40) for blow in setup.draw.sample(blows, len(blows))]
    for blow in order:
        if time.monotonic() > until:
            return
        setup.harm.append(blow.__name__)
        await blow(setup)
        await asyncio.sleep(setup.draw.uniform(0.3, 1.2))


async def kill_api(setup: Setup) -> None:
    """Kills a process and starts another."""
    await setup.replace(setup.draw.randrange(APIS), Api.kill)


async def restart_api(setup: Setup) -> None:
    """Restarts a process with SIGTERM."""
    await setup.replace(setup.draw.randrange(APIS), Api.stop)


async def pause_api(setup: Setup) -> None:
    """Pauses a process, sometimes for longer than others wait before recovering its requests."""
    api = setup.draw.choice(setup.apis)
    api.process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(setup.draw.choice((0.5, 4.5)))
    finally:
        api.process.send_signal(signal.SIGCONT)


async def stop_postgres(setup: Setup) -> None:
    """Stops Postgres, waits, and starts it."""
    await asyncio.to_thread(setup.postgres.stop)
    await asyncio.sleep(setup.draw.uniform(0, 2))
    await asyncio.to_thread(setup.postgres.start)


async def crash_postgres(setup: Setup) -> None:
    """Kills Postgres; it recovers from its log."""
    await asyncio.to_thread(setup.postgres.kill)
    await asyncio.to_thread(setup.postgres.start)


async def cut_connections(setup: Setup) -> None:
    """Terminates every connection to Postgres."""
    await _execute(setup, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'naka%'")


async def flush_redis(setup: Setup) -> None:
    """Deletes everything in Redis."""
    connection = await asyncio.to_thread(_redis, setup)
    await asyncio.to_thread(connection.flushall)
    connection.close()


async def stop_redis(setup: Setup) -> None:
    """Kills Redis; it restarts empty."""
    await asyncio.to_thread(setup.valkey.kill)
    await asyncio.sleep(setup.draw.uniform(0.2, 3))
    await asyncio.to_thread(setup.valkey.start)


async def pause_redis(setup: Setup) -> None:
    """Pauses Redis."""
    setup.valkey.pause()
    try:
        await asyncio.sleep(setup.draw.uniform(0.2, 3))
    finally:
        setup.valkey.resume()


def _redis(setup: Setup) -> Any:
    import redis  # noqa: PLC0415 - the synchronous client, for one command

    return redis.Redis.from_url(setup.valkey.url)


async def _execute(setup: Setup, statement: str) -> None:
    import asyncpg  # noqa: PLC0415

    connection = await asyncpg.connect(setup.postgres.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
