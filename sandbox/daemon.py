"""A server process with a folder of its own: the common part of the local Postgres and Valkey.

A lock, which the kernel releases with its process, gives the folder to one parent at a time. A server left running by a
killed parent is found by its pid file and ended before the next start. The server runs in its own session, so Ctrl-C
reaches the parent only, which stops it. Every wait is bounded; a failed start reports the last line of the log.
"""

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

with suppress(ImportError):  # it comes with the servers that it is for, in the extra `embedded`
    import psutil

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)  # below every system's ephemeral range: no outgoing connection can sit on one
PORT_TRIES = 50
START_S = 60.0
STOP_S = 30.0
POLL_S = 0.02
_given: set[int] = set()


class ServerUnavailable(Exception):
    """A local server cannot run here; the message gives the reason and a remedy."""


class Daemon:
    """One server process and its folder: lock, port, password, log."""

    def __init__(self, name: str, home: Path, *, data: Path, pid_file: Path, port: int | None) -> None:
        self.name = name
        self.home = home
        self.log = home / f"{name}.log"
        self._data = data
        self._pid_file = pid_file
        self._pinned_port = port
        self._port_file = home / "port"
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerUnavailable(f"{self.name} in {self.home} is not running")
        return self._process.pid

    def claim(self) -> None:
        """Locks the folder for this process and ends a server that a killed parent left running in it."""
        if self._process is not None:
            raise ServerUnavailable(f"{self.name} in {self.home} is already running")
        self.home.mkdir(parents=True, exist_ok=True)
        lock = (self.home / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise ServerUnavailable(f"{self.home} is in use by process {holder}: stop that one first") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        self._end_orphan()

    def secret(self, name: str = "password") -> str:
        """Returns a password, created once in a file that only its owner can read."""
        path = self.home / name
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24))
        return path.read_text()

    def pick_port(self) -> int:
        """Returns the pinned port, else the one of the last start, else a free one."""
        if self._pinned_port is not None:
            if not _is_free(self._pinned_port):
                raise ServerUnavailable(f"port {self._pinned_port} for {self.name} is taken: stop what listens there")
            return self._pinned_port
        return kept_port(self._port_file)

    def launch(self, command: list[str], ready: Callable[[], bool]) -> None:
        """Starts the server and returns once it is `ready`; kills it if it never is."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=bare_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._await(ready)
        except BaseException:
            self.kill()
            raise

    def end(self, first: signal.Signals) -> None:
        """Stops the server with the signal, kills it after `STOP_S`, and releases the folder.

        Without a server of this object, it ends one that a killed parent left running.
        """
        if self._process is None and self._pid_file.exists():
            self.claim()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)  # a paused process would not receive it
                self._process.send_signal(first)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self.release()

    def kill(self) -> None:
        """Sends SIGKILL to the server and its children; nothing is flushed."""
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                _kill_tree(psutil.Process(self._process.pid))
            self._process.wait(STOP_S)
        self.release()

    def release(self) -> None:
        """Forgets the process and unlocks the folder."""
        self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def last_words(self) -> str:
        """Returns the last line of the log, for an error message."""
        with suppress(FileNotFoundError):
            lines = self.log.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].strip()
        return "its log is empty"

    def _await(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            if self._process is None or self._process.poll() is not None:
                raise ServerUnavailable(f"{self.name} did not come up: {self.last_words()} ({self.log})")
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"{self.name} was not ready in {START_S:.0f} s: {self.last_words()}")
            time.sleep(POLL_S)

    def _end_orphan(self) -> None:
        try:
            orphan = psutil.Process(int(self._pid_file.read_text().split()[0]))
            if Path(orphan.cwd()) != self._data.resolve():
                return  # another process has this pid now
        except (OSError, ValueError, IndexError, psutil.Error):
            return
        with suppress(psutil.NoSuchProcess):
            orphan.resume()
            orphan.send_signal(signal.SIGINT)  # a fast, clean stop to Postgres and Valkey alike
            try:
                orphan.wait(STOP_S)
            except psutil.TimeoutExpired:
                _kill_tree(orphan)


def bare_environment() -> dict[str, str]:
    """Returns a minimal environment, without PG* variables or the parent's secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _kill_tree(root: "psutil.Process") -> None:
    root.suspend()  # so that it neither starts nor restarts a child meanwhile
    family = [*root.children(recursive=True), root]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=STOP_S)


def free_port() -> int:
    """Returns a free port outside of the ephemeral range, a different one each time. Raises ServerUnavailable."""
    for _ in range(PORT_TRIES):
        port = secrets.choice(PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise ServerUnavailable(f"no free port between {PORTS.start} and {PORTS.stop}")


def kept_port(file: Path) -> int:
    """Returns the port stored in the file if it is free; else stores and returns another free one."""
    with suppress(FileNotFoundError, ValueError):
        last = int(file.read_text())
        if _is_free(last):
            return last
    port = free_port()
    file.write_text(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
