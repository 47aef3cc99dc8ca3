"""The one connection to Redis of one use, such as admission. All calls that wait go out in the next pipeline.

One connection, because an epoch belongs to one run of one Redis: the run id is read at each connect, on the connection
that the scripts then run on, and goes into a call when it is sent. So no script gets the run id of another server.
Redis unreachable, slower than the time-out, or not fit to serve: `RedisUnavailable`. While the breaker is open every
call fails at once, without I/O, except the pipeline's own probe.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import (
    AskError,
    ClusterDownError,
    DataError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from core.errors import Unavailable
from core.logs import get_logger
from core.redis.mode import refused_mode
from core.tasks import end
from metering.admission.breaker import Breaker

_LUA = Path(__file__).parent / "lua"
_MAX_BATCH = 256
_PROBE_S = 1.0
_UNFIT = (OutOfMemoryError, ReadOnlyError, ClusterDownError, AskError, TryAgainError, NoPermissionError)

log = get_logger(__name__)


class RedisUnavailable(Unavailable):
    """Redis does not answer, or answers that it cannot serve. Postgres can decide instead."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the digest that Redis calls it by."""

    name: str
    text: bytes
    digest: str


def load_script(name: str, folder: Path = _LUA) -> Script:
    """Reads a script of a folder, by default `metering/admission/lua`."""
    text = (folder / f"{name}.lua").read_bytes()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


@dataclass(slots=True)
class _Call:
    command: tuple[Any, ...]
    needs_run: bool = False
    script: Script | None = None
    is_probe: bool = False
    answer: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RedisPipeline:
    """Calls scripts and commands in the order of the requests. One per process and use."""

    def __init__(
        self, url: str, *, timeout_s: float, breaker: Breaker | None = None, probe_s: float = _PROBE_S
    ) -> None:
        """`probe_s`: how often Redis is probed, also while it answers."""
        self.breaker = breaker or Breaker()
        self._probe_s = probe_s
        # A pipeline has one deadline: the library would set one for the request, and one for each answer.
        self._pool = ConnectionPool.from_url(
            url, socket_timeout=None, socket_connect_timeout=timeout_s, max_connections=1
        )
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._waiting: list[_Call] = []
        self._sent: list[_Call] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._probe_task: asyncio.Task[None] | None = None
        self._refusal_logged = False
        self.run_id = ""
        """The run id of the connected Redis; changes only with the connection."""

    def start(self) -> None:
        """Starts the tasks that send and probe."""
        self._task = asyncio.create_task(self._work(), name="redis-pipeline")
        self._probe_task = asyncio.create_task(self._probe(), name="redis-probe")

    async def stop(self) -> None:
        """Finishes what is queued and closes the connection."""
        if self._probe_task is not None:
            await end(self._probe_task)
        if self._task is not None:
            queued = [call.answer for call in (*self._sent, *self._waiting)]
            await asyncio.gather(*queued, return_exceptions=True)
            await end(self._task)
        await self._disconnect()

    def call(self, script: Script, keys: Sequence[str], *args: Any, needs_run: bool = False) -> "asyncio.Future[Any]":
        """The answer of a script; `needs_run` adds the run id as its last argument. Raises RedisUnavailable."""
        command = ("EVALSHA", script.digest, len(keys), *keys, *args)
        return self._queue(_Call(command, needs_run=needs_run, script=script))

    def command(self, *command: Any) -> "asyncio.Future[Any]":
        """The answer of a plain command. Raises RedisUnavailable."""
        return self._queue(_Call(command))

    async def connect(self) -> str:
        """Connects if needed; returns the server's run id. Raises RedisUnavailable."""
        if not self.run_id:
            await self.command("PING")
        return self.run_id

    def _queue(self, call: _Call) -> "asyncio.Future[Any]":
        if self.breaker.is_open and not call.is_probe:
            call.answer.set_exception(_unavailable())
        else:
            self._waiting.append(call)
            self._wake.set()
        return call.answer

    async def _probe(self) -> None:
        """Pings, so that the start and the end of an outage are noticed without traffic."""
        while True:
            await asyncio.sleep(self._probe_s)
            with contextlib.suppress(RedisUnavailable, ResponseError):
                await self._queue(_Call(("PING",), is_probe=True))

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            self._sent = batch
            try:
                async with asyncio.timeout(self._timeout_s if self.run_id else self._timeout_s * 2):
                    await self._pipeline(batch)
            except (RedisError, OSError, TimeoutError) as error:
                await self._disconnect()
                self._failed(batch, error)
            except BaseException:
                for call in batch:
                    call.answer.cancel()
                raise
            else:
                self._succeeded()
            if not self._waiting:
                self._wake.clear()

    def _succeeded(self) -> None:
        was_open = self.breaker.is_open
        self.breaker.succeeded()
        if was_open and not self.breaker.is_open:
            log.warning("redis_reachable")

    def _failed(self, batch: list[_Call], error: Exception) -> None:
        """Fails the batch; if that opens the breaker, also the calls that wait behind it."""
        if not self.breaker.is_open:
            log.warning("redis_pipeline_failed", error=type(error).__name__, calls=len(batch))
            self.breaker.failed(time.monotonic())
            if self.breaker.is_open:
                log.error("redis_unreachable", waiting=len(self._waiting))
                batch, self._waiting = [*batch, *self._waiting], []
        else:
            self.breaker.failed(time.monotonic())
        for call in batch:
            if not call.answer.done():
                call.answer.set_exception(_unavailable())

    async def _pipeline(self, batch: list[_Call]) -> None:
        connection = await self._connected()
        await connection.send_packed_command(self._packed(batch))
        unknown = []
        for call in batch:
            try:
                answer = await connection.read_response()
            except NoScriptError:
                unknown.append(call)
            except ResponseError as error:
                if _cannot_serve(error):
                    raise
                if not call.answer.done():
                    call.answer.set_exception(_refused(call, error))
            else:
                if not call.answer.done():
                    call.answer.set_result(answer)
        if unknown:
            for script in {call.script.digest: call.script for call in unknown if call.script}.values():
                await _ask(connection, "SCRIPT", "LOAD", script.text)
            await self._pipeline(unknown)

    def _packed(self, batch: list[_Call]) -> bytes:
        """The bytes of the commands. Raises DataError, as the library does for what it cannot encode."""
        commands = [(*call.command, self.run_id) if call.needs_run else call.command for call in batch]
        try:
            return b"".join(map(pack_command, commands))
        except (TypeError, ValueError) as error:
            raise DataError("an argument is neither text, bytes nor a number") from error

    async def _connected(self) -> AbstractConnection:
        if self._connection is None or not self._connection.is_connected:
            self.run_id = ""
            connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            self._connection = connection
            await connection.connect()  # type: ignore[no-untyped-call]
            info = await _ask(connection, "INFO", "server")
            self.run_id = self._run_id(_fields(info))
        return self._connection

    def _run_id(self, info: dict[str, str]) -> str:
        """Raises OSError for an unsupported server. Logged once, since the probe connects every second."""
        refused = refused_mode(info)
        if refused is not None:
            if not self._refusal_logged:
                log.critical("redis_not_supported", detail=f"REDIS_URL names {refused}")
            self._refusal_logged = True
            raise ConnectionError(refused)
        if "run_id" not in info:
            raise ResponseError("INFO server names no run_id")
        return info["run_id"]

    async def _disconnect(self) -> None:
        connection, self._connection, self.run_id = self._connection, None, ""
        if connection is not None:
            await connection.disconnect(nowait=True)


def _unavailable() -> RedisUnavailable:
    return RedisUnavailable("the quota store does not answer")


def _refused(call: _Call, error: ResponseError) -> Exception:
    """The error of one call. A script that fails on a hash is a bug; Postgres decides for its tenant."""
    if call.script is None:
        return error
    log.critical("script_failed", script=call.script.name, error=str(error))
    return _unavailable()


def _cannot_serve(error: ResponseError) -> bool:
    """Whether the server answers but is unfit: full, a replica, unable to save, or its slots are elsewhere."""
    return isinstance(error, _UNFIT) or str(error).startswith(("MISCONF", "NOREPLICAS"))


async def _ask(connection: AbstractConnection, *command: Any) -> Any:
    await connection.send_command(*command)
    return await connection.read_response()


def _fields(info: Any) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else str(info)
    named = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in named}
