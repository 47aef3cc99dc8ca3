"""`naka up`: the whole system on this machine.

Starts servers and simulators for everything not configured, migrates, creates the demo tenant once, starts the API and
a worker, and prints which parts are real. A new home gets a month of invented usage (`seeding`), if everything is local
and simulated. Data stays in the home folder. Ctrl-C stops everything. An error is one line.
"""

import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from api.cli.processes.children import start_api
from api.cli.signals import ending_signals
from core.environment import variable
from core.errors import NakaError
from core.settings import SettingsError
from sandbox.daemon import ServerUnavailable

_HOST = "127.0.0.1"
_console = Console(stderr=True, highlight=False)


class _Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP. No `except Exception` of a module that is being imported may swallow it."""


def up(
    port: Annotated[int, typer.Option(help="Port of the API.", min=1, max=65535)] = 8000,
    home: Annotated[Path, typer.Option(help="Folder for data and logs.")] = Path(".naka"),
    *,
    empty: Annotated[bool, typer.Option("--empty", help="Put no month of invented usage into a new folder.")] = False,
) -> None:
    """Start everything on this machine: servers, simulators, the API, the worker."""
    home = home.resolve()
    for number in ending_signals():
        signal.signal(number, _stop)
    try:
        _run(port, home, empty=empty)
    except _Stopped:
        pass
    except (ServerUnavailable, NakaError, OSError) as error:
        _console.print(f"[red]naka up:[/] {error}")
        raise typer.Exit(1) from None
    _console.print("stopped")


def _run(port: int, home: Path, *, empty: bool) -> None:
    if variable("NAKA_ENV") == "production":
        raise SettingsError("`naka up` is for development, and NAKA_ENV is production: use `naka serve`, `naka worker`")
    _need_free(port)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    url = f"http://{_HOST}:{port}"
    with ExitStack() as stack:
        api = start_api(stack, home, url)
        # Long imports, while the API's process does its own.
        from api.cli.processes.stack import run  # noqa: PLC0415

        run(stack, api, home, url, _console, empty=empty)


def _stop(_: int, __: FrameType | None) -> None:
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the stop
    raise _Stopped


def _need_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            raise ServerUnavailable(f"port {port} is in use: stop its process, or use --port") from None
