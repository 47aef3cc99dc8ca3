"""`naka up`: the whole system on this machine.

Starts servers and simulators for everything not configured, migrates, creates the demo tenant once, starts the API and
a worker, and prints which parts are real. Data stays in the home folder. Ctrl-C stops everything. An error is one line.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Console

from api.cli.processes.demo import demo_keys, write_private
from api.cli.signals import ending_signals
from core.environment import variable
from core.errors import NakaError
from core.postgres.database import Database
from core.settings import SANDBOX_ANTHROPIC_KEY, Settings, SettingsError, build_settings
from migrations.upgrade import migrate
from sandbox.daemon import ServerUnavailable
from sandbox.laptop import Laptop, laptop, stop_process

_READY_S = 60
_STOP_S = 40
_HOST = "127.0.0.1"
_NO_BALANCER = {"SHUTDOWN_DRAIN_S": "0", "SHUTDOWN_GRACE_S": "5"}
"""No load balancer has to notice the stop, and a person waits for it."""
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens our own loopback URL without the environment's proxies."""
_console = Console(stderr=True, highlight=False)


class _Stopped(Exception):
    """SIGINT, SIGTERM or SIGHUP."""


def up(
    port: Annotated[int, typer.Option(help="Port of the API.", min=1, max=65535)] = 8000,
    home: Annotated[Path, typer.Option(help="Folder for data and logs.")] = Path(".naka"),
) -> None:
    """Start everything on this machine: servers, simulators, the API, the worker."""
    home = home.resolve()
    for number in ending_signals():
        signal.signal(number, _stop)
    try:
        _run(port, home)
    except _Stopped:
        pass
    except (ServerUnavailable, NakaError, OSError) as error:
        _console.print(f"[red]naka up:[/] {error}")
        raise typer.Exit(1) from None
    _console.print("stopped")


def _run(port: int, home: Path) -> None:
    if variable("NAKA_ENV") == "production":
        raise SettingsError("`naka up` is for development, and NAKA_ENV is production: use `naka serve`, `naka worker`")
    _need_free(port)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = build_settings(Path(".env"), naka_env="development")
    configured = {
        "NAKA_ENV": "development",
        "DATABASE_URL": settings.database_url,
        "DATABASE_MIGRATION_URL": settings.database_migration_url,
        "REDIS_URL": settings.redis_url,
        "ANTHROPIC_API_KEY": settings.anthropic_api_key.get_secret_value(),
        "ANTHROPIC_BASE_URL": settings.anthropic_base_url,
        "RAZORPAY_KEY_ID": settings.razorpay_key_id,
        "RAZORPAY_BASE_URL": settings.razorpay_base_url,
    }
    url = f"http://{_HOST}:{port}"
    with ExitStack() as stack:
        with _console.status("starting") as status:

            def tell(doing: str) -> None:
                status.update(doing)
                if not _console.is_terminal:
                    _console.print(doing)

            running = stack.enter_context(
                laptop(home, configured, anthropic_key=SANDBOX_ANTHROPIC_KEY, api_url=url, tell=tell)
            )
            environment = configured | running.environment
            tell("bringing the database up to date")
            # The API and the worker do not need the owner's URL.
            owner_url = environment.pop("DATABASE_MIGRATION_URL")
            urls = {"database_url": environment["DATABASE_URL"], "database_migration_url": owner_url}
            settings = settings.model_copy(update=urls)
            migrate(settings.postgres_owner, settings.postgres)
            tell("preparing the demo tenant")
            keys = asyncio.run(_demo(settings, _known(home / "demo.json")))
            started = {"NAKA_ENV": "development", **running.environment}
            write_private(home / "env", "".join(f"{name}={value}\n" for name, value in started.items()))
            tell("starting the API and the worker")
            # Both start side by side. The worker stops last, to finish what the API leaves.
            for name, log, command in (
                ("the worker", "worker.log", ["worker"]),
                ("the API", "api.log", ["serve", "--host", _HOST, "--port", str(port)]),
            ):
                running.children[name] = _start(command, home / log, environment)
                stack.callback(stop_process, running.children[name], within_s=_STOP_S)
            _await_ready(url, running.children["the API"], home)
            sandbox = {
                "webhook_secret": running.environment.get("RAZORPAY_WEBHOOK_SECRET"),
                "razorpay_url": running.environment.get("RAZORPAY_BASE_URL"),
            }
            demo = {"url": url, **keys, **sandbox, "anthropic_url": environment["ANTHROPIC_BASE_URL"]}
            write_private(home / "demo.json", json.dumps(demo, indent=2) + "\n")
        _banner(url, keys, running, home)
        try:
            _watch(running, home)
        finally:
            _console.print("stopping")


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


def _known(file: Path) -> dict[str, str]:
    """The file of an earlier start; empty if missing or incomplete."""
    try:
        known: dict[str, str] = json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return known


async def _demo(settings: Settings, known: dict[str, str]) -> dict[str, str]:
    database = Database(settings.postgres)
    try:
        return await demo_keys(database, known, ZoneInfo(settings.timezone))
    finally:
        await database.close()


def _start(command: list[str], file: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a process in its own session, which ends when this process ends."""
    given = _NO_BALANCER | os.environ | environment
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


def _banner(url: str, keys: dict[str, str], running: Laptop, home: Path) -> None:
    _console.print()
    _console.print(f"[bold]Naka[/] is up: [bold]{url}[/]")
    for part in running.parts:
        kind = "[green]real[/]     " if part.real else "[yellow]simulated[/]"
        _console.print(f"  {part.name:10} {kind}  {part.where}", soft_wrap=True)
    _console.print(f"Background duties: naka worker   (log: {home / 'worker.log'})", soft_wrap=True)
    _console.print(f"\nKeys for trying it, and for scripts: {home / 'demo.json'}", soft_wrap=True)
    _console.print(f"Chat page: {url}/   (key: {keys['chat_key']})", soft_wrap=True)
    _console.print("Ask from a terminal:\n", soft_wrap=True)
    command = (
        f"curl -N {url}/chat -H 'authorization: Bearer {keys['chat_key']}' "
        "-H 'content-type: application/json' -d '{\"message\": \"What is a webhook?\"}'"
    )
    _console.print(f"  {command}\n", soft_wrap=True, markup=False)
    _console.print("Ctrl-C stops everything; the data stays.")


def _watch(running: Laptop, home: Path) -> None:
    """Waits for a stop signal. Raises ServerUnavailable when a process ends."""
    while True:
        time.sleep(0.5)
        for name, process in running.children.items():
            if process.poll() is not None:
                raise ServerUnavailable(f"{name} stopped unexpectedly: see the logs in {home}")
