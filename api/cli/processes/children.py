"""The processes that `naka up` starts beside the servers: the API and the worker, each in a session of its own.

They end with this process. Their logs are in the home folder.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import cache_from_source
from pathlib import Path
from threading import Thread

from sandbox.daemon import ServerUnavailable
from sandbox.laptop import Laptop, stop_process

API, WORKER = "the API", "the worker"
_READY_S = 120
_STOP_S = 40
_NO_BALANCER = {"SHUTDOWN_DRAIN_S": "0", "SHUTDOWN_GRACE_S": "5"}
"""No load balancer has to notice the stop, and a person waits for it."""
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens our own loopback URL without the environment's proxies."""
_MODULES = "import api.app, api.http.server, api.worker"


def load_ahead(stack: ExitStack) -> None:
    """Compiles the API's modules while the servers start, after an installation: nobody has imported them yet."""
    if Path(cache_from_source(str(Path(__file__).parents[2] / "app.py"))).exists():
        return
    child = subprocess.Popen(
        [sys.executable, "-c", _MODULES], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(stop_process, child)
    Thread(target=child.wait, daemon=True).start()  # nobody else waits for its end


def start_children(
    stack: ExitStack,
    running: Laptop,
    home: Path,
    environment: Mapping[str, str],
    url: str,
    *,
    when_ready: Callable[[], None],
) -> None:
    """Starts the API, calls `when_ready` once it answers, then starts the worker. Raises ServerUnavailable.

    The worker is stopped after the API, to finish what that leaves.
    """

    def stop(name: str) -> None:
        if name in running.children:
            stop_process(running.children[name], within_s=_STOP_S)

    for name in (WORKER, API):
        stack.callback(stop, name)
    host, port = url.removeprefix("http://").rsplit(":", 1)
    api = _start(["serve", "--host", host, "--port", port], home / "api.log", environment)
    running.children[API] = api
    _await_ready(url, api, home)
    when_ready()
    running.children[WORKER] = _start(["worker"], home / "worker.log", environment)


def _start(command: list[str], file: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a process in its own session, which ends when this process ends. It does not need the owner's URL."""
    given = _NO_BALANCER | os.environ | dict(environment)
    with file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "api.cli", *command, "--with-parent"],
            env={name: value for name, value in given.items() if name != "DATABASE_MIGRATION_URL"},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


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
