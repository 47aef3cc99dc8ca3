"""The one connection to Redis that admission uses, with natural batching: whatever waits goes in the next pipeline.

It is one connection because an epoch belongs to one run of one Redis: the run id is read at each connect, on the
very connection that the scripts then run on, and goes into a call when it is sent, so a script can never be told the
run of another server. Scripts are
called by their digest and loaded when the server does not know them. Away or slow past the time-out: `Unavailable`.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import NoScriptError, RedisError, ResponseError

from core.errors import Unavailable
from core.logs import get_logger

_LUA = Path(__file__).parent / "lua"
_MAX_BATCH = 256

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the digest that Redis knows it by."""

    name: str
    text: bytes
    digest: str


def load_script(name: str) -> Script:
    """A script of `metering/lua`."""
    text = (_LUA / f"{name}.lua").read_bytes()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


@dataclass(slots=True)
class _Call:
    command: Sequence[Any]
    answer: "asyncio.Future[Any]"
    needs_run: bool = False
    script: Script | None = None


class RedisLane:
    """Calls scripts and commands in the order they were asked for. One per process."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._pool = ConnectionPool.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, max_connections=1
        )
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._waiting: list[_Call] = []
        self._sent: list[_Call] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.run_id = ""
        """The run of the Redis that the connection leads to; changes only when it is made anew."""

    def start(self) -> None:
        """Starts the lane's task."""
        self._task = asyncio.create_task(self._work(), name="redis-lane")

    async def stop(self) -> None:
        """Finishes what is queued and closes the connection."""
        if self._task is not None:
            queued = [call.answer for call in (*self._sent, *self._waiting)]
            await asyncio.gather(*queued, return_exceptions=True)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()

    def call(self, script: Script, keys: Sequence[str], *args: Any, needs_run: bool = False) -> "asyncio.Future[Any]":
        """The answer of a script; with `needs_run` its last argument is the run it is sent to. Raises Unavailable."""
        command = ("EVALSHA", script.digest, len(keys), *keys, *args)
        return self._queue(_Call(command, self._future(), needs_run, script))

    def command(self, *command: Any) -> "asyncio.Future[Any]":
        """The answer of a plain command. Raises Unavailable."""
        return self._queue(_Call(command, self._future()))

    async def connect(self) -> str:
        """The run id of the server, after connecting if that is needed. Raises Unavailable."""
        if not self.run_id:
            await self.command("PING")
        return self.run_id

    @staticmethod
    def _future() -> "asyncio.Future[Any]":
        return asyncio.get_running_loop().create_future()

    def _queue(self, call: _Call) -> "asyncio.Future[Any]":
        self._waiting.append(call)
        self._wake.set()
        return call.answer

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            self._sent = batch
            try:
                async with asyncio.timeout(self._timeout_s * 2):
                    await self._pipeline(batch)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("redis_lane_failed", error=type(error).__name__, calls=len(batch))
                await self._disconnect()
                for call in batch:
                    if not call.answer.done():
                        call.answer.set_exception(Unavailable("the quota store does not answer"))
            except BaseException:
                for call in batch:
                    call.answer.cancel()
                raise
            if not self._waiting:
                self._wake.clear()

    async def _pipeline(self, batch: list[_Call]) -> None:
        connection = await self._connected()
        commands = [(*call.command, self.run_id) if call.needs_run else call.command for call in batch]
        await connection.send_packed_command(connection.pack_commands(commands))
        unknown = []
        for call in batch:
            try:
                answer = await connection.read_response()
            except NoScriptError:
                unknown.append(call)
            except ResponseError as error:
                if not call.answer.done():
                    call.answer.set_exception(error)
            else:
                if not call.answer.done():
                    call.answer.set_result(answer)
        if unknown:
            for script in {call.script.digest: call.script for call in unknown if call.script}.values():
                await _ask(connection, "SCRIPT", "LOAD", script.text)
            await self._pipeline(unknown)

    async def _connected(self) -> AbstractConnection:
        if self._connection is None or not self._connection.is_connected:
            self.run_id = ""
            connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            self._connection = connection
            await connection.connect()  # type: ignore[no-untyped-call]
            info = await _ask(connection, "INFO", "server")
            self.run_id = _run_id(info)
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection, self.run_id = self._connection, None, ""
        if connection is not None:
            await connection.disconnect(nowait=True)


async def _ask(connection: AbstractConnection, *command: Any) -> Any:
    await connection.send_command(*command)
    return await connection.read_response()


def _run_id(info: Any) -> str:
    text = info.decode() if isinstance(info, bytes) else str(info)
    for line in text.splitlines():
        if line.startswith("run_id:"):
            return line.removeprefix("run_id:").strip()
    raise ResponseError("INFO server names no run_id")
