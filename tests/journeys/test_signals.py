"""A signal that comes while a process still starts ends it at once, also as the first of a container (PID 1)."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sandbox.daemon import free_port
from tests.harness import ROOT

WITHIN_S = 30


@contextmanager
def first_of_a_container(
    command: str, log: Path, **variables: str
) -> Iterator[tuple[psutil.Process, "subprocess.Popen[bytes]"]]:
    """Runs `naka COMMAND` as PID 1 of a namespace, if possible."""
    own = ["unshare", "--pid", "--fork", "--kill-child"] if os.getuid() == 0 and shutil.which("unshare") else []
    with log.open("wb") as out:
        started = subprocess.Popen(
            [*own, sys.executable, "-m", "api.cli", command],
            cwd=ROOT,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield _inner(started) if own else psutil.Process(started.pid), started
    finally:
        started.kill()
        started.wait(WITHIN_S)


def _inner(started: "subprocess.Popen[bytes]") -> psutil.Process:
    deadline = time.monotonic() + WITHIN_S
    while not (children := psutil.Process(started.pid).children()):
        assert time.monotonic() < deadline
    return children[0]


def _await_handler(process: psutil.Process, number: signal.Signals) -> None:
    """Returns once the process has installed its signal handlers."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        caught = next(
            int(line.split()[1], 16)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("SigCgt")
        )
        if caught >> (number - 1) & 1:
            return
    raise AssertionError("it never listens")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_the_start_is_heard(command: str, number: signal.Signals, tmp_path: Path) -> None:
    silent = free_port()
    settings = {
        "DATABASE_URL": f"postgresql://127.0.0.1:{silent}/x",
        "REDIS_URL": f"redis://127.0.0.1:{silent}/0",
        "ANTHROPIC_API_KEY": "never-used",
        "SPOOL_DIR": str(tmp_path / "spool"),
    }
    with first_of_a_container(command, tmp_path / "log", **settings) as (process, started):
        _await_handler(process, number)
        time.sleep(random.uniform(0, 0.2))  # in the imports
        began = time.monotonic()
        process.send_signal(number)
        assert started.wait(WITHIN_S) == 0, (tmp_path / "log").read_text()
        assert time.monotonic() - began < 5
        assert (tmp_path / "log").read_text() == ""
