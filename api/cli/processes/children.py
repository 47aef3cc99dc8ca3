"""The processes that `naka up` starts beside the servers: the API and the worker, each in a session of its own.

They end with this process. Their logs are in the home folder.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, cast

from sandbox.daemon import ServerUnavailable
from sandbox.laptop import Laptop, stop_process

API, WORKER = "the API", "the worker"
_READY_S = 120
_STOP_S = 40
_NO_BALANCER = {"SHUTDOWN_DRAIN_S": "0", "SHUTDOWN_GRACE_S": "5"}
"""No load balancer has to notice the stop, and a person waits for it."""
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens our own loopback URL without the environment's proxies."""


def start_api(stack: ExitStack, home: Path, url: str) -> "subprocess.Popen[bytes]":
    """Starts the API's process, which imports the application and then waits for `start_children`.

    The imports take seconds, most of them at the first start after an installation: meanwhile the servers start.
    """
    host, port = url.removeprefix("http://").rsplit(":", 1)
    api = _start(["serve", "--host", host, "--port", port], home / "api.log")
    stack.callback(stop_process, api)
    return api


def start_children(
    stack: ExitStack,
    running: Laptop,
    api: "subprocess.Popen[bytes]",
    home: Path,
    environment: Mapping[str, str],
    url: str,
    *,
    when_ready: Callable[[], None],
) -> None:
    """Lets the API begin, calls `when_ready` once it answers, then starts the worker. Raises ServerUnavailable.

    The worker is stopped after the API, to finish what that leaves.
    """

    def stop(name: str) -> None:
        if name in running.children:
            stop_process(running.children[name], within_s=_STOP_S)

    for name in (WORKER, API):
        stack.callback(stop, name)
    running.children[API] = api
    _give(api, environment)
    _await_ready(url, api, home)
    when_ready()
    running.children[WORKER] = worker = _start(["worker"], home / "worker.log")
    _give(worker, environment)


def _start(command: list[str], file: Path) -> "subprocess.Popen[bytes]":
    """Starts a process in its own session, which waits for its variables and ends when this process ends."""
    with file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "api.cli", *command, "--with-parent"],
            bufsize=0,  # after a failed write nothing is left for `close` to write
            env=_without_owner(_NO_BALANCER | os.environ),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _give(process: "subprocess.Popen[bytes]", environment: Mapping[str, str]) -> None:
    """Passes a process the variables that it waits for. One that has ended is noticed where it is awaited."""
    pipe = cast("IO[bytes]", process.stdin)
    with suppress(BrokenPipeError):
        pipe.write(json.dumps(_without_owner(environment)).encode() + b"\n")
        pipe.flush()


def _without_owner(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the URL of the schema's owner, which neither process needs."""
    return {name: value for name, value in environment.items() if name != "DATABASE_MIGRATION_URL"}


def _await_ready(url: str, api: "subprocess.Popen[bytes]", home: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if api.poll() is not None:
            break
        try:
            with _direct.open(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ServerUnavailable(f"the API did not start: see {home / 'api.log'}")
