"""Starts the project's programs (`api.cli serve`, the simulators) by forking a process that has imported them.

Importing the server takes two seconds of CPU, and a test run starts some hundred of them. One fork server per test
process imports once, never runs a thread or an event loop, and forks on request; a fork behaves like
`python -m MODULE ARGUMENTS` with the given environment. The fork server ends, and kills its forks, when the test
process closes its end of the socket, however that process ends.

Only Linux has a fork that is safe here; elsewhere `start` runs a new interpreter. It also does when a library reads the
environment while it is imported (`READ_ON_IMPORT`), and for a simulator that is needed before the first API.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "api.cli.commands",
    "api.app",
    "api.worker",
    "uvicorn",
    "sandbox.anthropic.app",
    "sandbox.razorpay.app",
    "sandbox.serving",
)
READ_ON_IMPORT = {"PROMETHEUS_MULTIPROC_DIR"}
_MESSAGE_BYTES = 1 << 20
_MAX_FDS = 16
_POLL_S = 0.01
_START_S = 180


class Fork:
    """A forked program, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, status: int, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = stdin
        self.stdout = stdout
        self._status = status

    def poll(self) -> int | None:
        """The exit code (minus the signal that ended it), or None while it runs."""
        return self._read(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and its code is on the way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            said = os.read(self._status, 16)
            os.close(self._status)
            self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode


Program = Fork | subprocess.Popen[bytes]


def start(
    module: str,
    *arguments: str,
    variables: Mapping[str, str] = MappingProxyType({}),
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> Program:
    """Starts `python -m MODULE ARGUMENTS` in the project's folder, with `variables` besides this environment.

    A file as `stdout` takes standard error, too.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environment = inherited | dict(variables)
    if sys.platform != "linux" or READ_ON_IMPORT & environment.keys() or _starts_faster_alone(module):
        stderr = stdout if stdout != subprocess.PIPE else None
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds
        )
    return _server(os.getpid()).fork([module, *arguments], environment, stdin, stdout, pass_fds)


def _starts_faster_alone(module: str) -> bool:
    """Whether it is a simulator, and no fork server is there yet, which would import the API first, for seconds."""
    return module.startswith("sandbox.") and _server.cache_info().currsize == 0


def listening(module: str, *arguments: str, stdin: int | None = subprocess.DEVNULL) -> tuple[Program, str]:
    """Starts a simulator, and returns it with the URL that it says it listens on."""
    program = start(module, *arguments, stdin=stdin, stdout=subprocess.PIPE)
    assert program.stdout is not None
    with program.stdout as said:
        line = said.readline().decode().strip()
    assert line.startswith("listening on http://127.0.0.1:"), f"{module} did not start"
    return program, line.removeprefix("listening on ")


def stop(program: Program, *, within_s: float = 20) -> int:
    """Ends the program by SIGTERM, or by SIGKILL when that takes too long; its exit code."""
    program.terminate()
    try:
        return program.wait(within_s)
    except subprocess.TimeoutExpired:
        program.kill()
        return program.wait(10)


class _Client:
    """The test process's end of the socket."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._process.returncode = 0  # it ends with this process: no ResourceWarning
        self._socket.settimeout(_START_S)
        atexit.register(self._socket.close)

    def fork(
        self,
        argv: list[str],
        environment: dict[str, str],
        stdin: int | None,
        stdout: int | IO[bytes] | None,
        pass_fds: Sequence[int],
    ) -> Fork:
        """Asks for a fork and waits for its pid."""
        status, theirs = os.pipe()
        opened = [theirs]
        ends: dict[str, IO[bytes] | None] = {"stdin": None, "stdout": None}

        def pipe(name: str, mode: str) -> int:
            read, write = os.pipe()
            kept, given = (write, read) if mode == "wb" else (read, write)
            ends[name] = os.fdopen(kept, mode, 0 if mode == "wb" else -1)
            opened.append(given)
            return given

        def null() -> int:
            opened.append(os.open(os.devnull, os.O_RDWR))
            return opened[-1]

        in_fd = pipe("stdin", "wb") if stdin == subprocess.PIPE else null()
        if stdout == subprocess.PIPE:
            out_fd, err_fd = pipe("stdout", "rb"), 2
        elif stdout is None:
            out_fd, err_fd = 1, 2
        else:
            out_fd = err_fd = stdout if isinstance(stdout, int) else stdout.fileno()
        try:
            message = json.dumps({"argv": argv, "env": environment, "fds": list(pass_fds)}).encode()
            socket.send_fds(self._socket, [message], [theirs, in_fd, out_fd, err_fd, *pass_fds])
            pid = int(self._socket.recv(32))
        finally:
            for number in opened:
                os.close(number)
        return Fork(pid, status, ends["stdin"], ends["stdout"])


@cache
def _server(pid: int) -> _Client:
    """The fork server of the process `pid`, which is this one: a fork of it would need its own."""
    del pid
    return _Client()


# -------------------------------------------------------------------------------------------- the server


def _serve(asked: socket.socket) -> None:
    """Forks on request, and sends each fork's exit code, until the test process is gone."""
    for name in IMPORTED:
        import_module(name)
    gc.collect()
    gc.freeze()
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([asked.fileno(), awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _reap(running)
        if asked.fileno() in ready:
            message, fds, _, _ = socket.recv_fds(asked, _MESSAGE_BYTES, _MAX_FDS)
            if not message:
                break
            request: dict[str, Any] = json.loads(message)
            pid = os.fork()
            if pid == 0:
                _become(request, fds[1:], [asked.fileno(), awake, wake, *fds[:1], *running.values()])
            for number in fds[1:]:
                os.close(number)
            running[pid] = fds[0]
            asked.send(str(pid).encode())
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _reap(running: dict[int, int]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            told = running.pop(pid)
            with suppress(OSError):  # nobody waits for it any more
                os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(told)


def _become(request: dict[str, Any], fds: list[int], foreign: list[int]) -> None:
    """Turns this fork into the program; does not return."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _place(fds, [0, 1, 2, *request["fds"]], foreign)
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        module, *arguments = request["argv"]
        sys.argv = [module, *arguments]
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(0, "r", closefd=False),
            os.fdopen(1, "w", closefd=False),
            os.fdopen(2, "w", 1, closefd=False),
        )
        gc.unfreeze()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _place(fds: list[int], wanted: list[int], foreign: list[int]) -> None:
    """Gives each descriptor its number, inheritable, and closes what belongs to the server."""
    spare = max([*fds, *wanted, *foreign]) + 1
    moved = [os.dup2(number, spare + index, inheritable=False) for index, number in enumerate(fds)]
    for number in {*fds, *foreign}:
        os.close(number)
    for number, place in zip(moved, wanted, strict=True):
        os.dup2(number, place, inheritable=True)
        os.close(number)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
