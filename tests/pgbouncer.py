"""Debian's pgbouncer in front of a test's Postgres, as an operator would run it: on the loopback, in one mode.

Without it what needs it is skipped, or fails when REQUIRE_BROWSER=1. Started by root it runs as `nobody`.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import pytest

from sandbox.daemon import free_port

_START_S = 10
_CONFIG = """[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
auth_type = plain
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 400
unix_socket_dir =
"""


def program() -> str:
    """Where it is; skips the test without it."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        missing = pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip
        missing("pgbouncer is not installed (on Debian: apt install pgbouncer)")
    return found


class PgBouncer:
    """A pgbouncer in `mode` before the server of the URL, with `size` connections of its own to it."""

    def __init__(self, database_url: str, mode: str, *, size: int = 20) -> None:
        self._command = program()
        server = urlsplit(database_url)
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="naka-pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        place = {"host": server.hostname, "port": server.port, "own": self._port, "folder": self._folder}
        (self._folder / "users.txt").write_text(f'"{server.username}" "{unquote(server.password or "")}"\n')
        (self._folder / "pgbouncer.ini").write_text(_CONFIG.format(mode=mode, size=size, **place))
        self.url = f"{server.scheme}://{server.username}:{server.password}@127.0.0.1:{self._port}{server.path}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Returns once it listens."""
        with (self._folder / "log").open("ab") as log:
            command = [self._command, str(self._folder / "pgbouncer.ini")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **_as_nobody(self._folder))
        _await(self._port, self._process, self._folder / "log")

    def kill(self) -> None:
        """Kills it; its connections break."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


def _as_nobody(folder: Path) -> dict[str, Any]:
    """It refuses to be root, so root gives it the folder."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"pgbouncer does not answer: {log.read_text()}")
