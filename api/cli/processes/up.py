"""`naka up`: the whole system on this machine.

Starts servers and simulators for everything not configured, migrates, creates the demo tenant once, starts the API and
a worker, and prints which parts are real. A new home gets a month of invented usage (`seeding`), if everything is local
and simulated. Data stays in the home folder. Ctrl-C stops everything. An error is one line.
"""

import asyncio
import json
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from api.cli.processes.children import load_ahead, start_children
from api.cli.processes.demo import DEMO_PLAN, demo_keys, write_private
from api.cli.processes.demo_people import PEOPLE, demo_members
from api.cli.processes.month import DAYS
from api.cli.processes.sign_in import LINKS_FOR_MIN, demo_links
from api.cli.signals import ending_signals
from core.clock import DAY_MS, follow_test_clock
from core.environment import variable
from core.errors import NakaError
from core.postgres.database import Database
from core.settings import SANDBOX_ANTHROPIC_KEY, Settings, SettingsError, build_settings
from core.settings.sign_in import SANDBOX_OIDC_CLIENT_ID
from migrations.upgrade import migrate
from sandbox.daemon import ServerUnavailable
from sandbox.laptop import Laptop, laptop

_HOST = "127.0.0.1"
_PAISE_PER_USD = "8800"
"""For the demo's margin, where none is configured."""
_console = Console(stderr=True, highlight=False)


class _Stopped(Exception):
    """SIGINT, SIGTERM or SIGHUP."""


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
    settings = build_settings(Path(".env"), naka_env="development")
    configured = _configured(settings)
    url, seeds = f"http://{_HOST}:{port}", not empty and _is_new(home, configured)
    with ExitStack() as stack:
        with _console.status("starting") as status:

            def tell(doing: str) -> None:
                status.update(doing)
                if not _console.is_terminal:
                    _console.print(doing)

            load_ahead(stack)
            start_s = int(time.time()) - DAYS * DAY_MS // 1000 if seeds else None
            running = stack.enter_context(
                laptop(
                    home,
                    configured,
                    anthropic_key=SANDBOX_ANTHROPIC_KEY,
                    api_url=url,
                    tell=tell,
                    start_s=start_s,
                    people=PEOPLE,
                )
            )
            if settings.paise_per_usd is None:
                running.environment["PAISE_PER_USD"] = _PAISE_PER_USD
            if not settings.public_url:
                running.environment["PUBLIC_URL"] = url
            started = {name: configured[name] for name in ("NAKA_ENV", "DEFAULT_PLAN")} | running.environment
            write_private(home / "env", "".join(f"{name}={value}\n" for name, value in started.items()))
            settings = build_settings(Path(".env"), **{name.lower(): value for name, value in started.items()})
            if settings.test_clock_file is not None:
                follow_test_clock(settings.test_clock_file)
            tell("bringing the database up to date")
            migrate(settings.postgres_owner, settings.postgres)
            tell("preparing the demo tenant")
            keys = asyncio.run(_demo(settings, _known(home / "demo.json")))
            tell("starting the API and the worker")
            start_children(
                stack,
                running,
                home,
                configured | started,
                url,
                when_ready=lambda: _seed(settings, url, keys, status) if seeds else None,
            )
            links = asyncio.run(demo_links(settings, url, keys))
            sandbox = {
                "webhook_secret": running.environment.get("RAZORPAY_WEBHOOK_SECRET"),
                "razorpay_url": running.environment.get("RAZORPAY_BASE_URL"),
            }
            demo = {"url": url, **keys, **sandbox, "anthropic_url": settings.anthropic_base_url}
            write_private(home / "demo.json", json.dumps(demo, indent=2) + "\n")
        _banner(url, keys, links, running, home)
        try:
            _watch(running, home)
        finally:
            _console.print("stopping")


def _configured(settings: Settings) -> dict[str, str]:
    """The servers and providers that the environment or `.env` names."""
    return {
        "NAKA_ENV": "development",
        "DATABASE_URL": settings.database_url,
        "DATABASE_MIGRATION_URL": settings.database_migration_url,
        "REDIS_URL": settings.redis_url,
        "ANTHROPIC_API_KEY": settings.anthropic_api_key.get_secret_value(),
        "ANTHROPIC_BASE_URL": settings.anthropic_base_url,
        "RAZORPAY_KEY_ID": settings.razorpay_key_id,
        "RAZORPAY_BASE_URL": settings.razorpay_base_url,
        "DEFAULT_PLAN": settings.default_plan or DEMO_PLAN,
        "OIDC_ISSUER": settings.oidc_issuer,
    }


def _is_new(home: Path, configured: dict[str, str]) -> bool:
    """Whether nothing is in the home folder yet, and no usage would reach another database or a real provider."""
    elsewhere = ("DATABASE_URL", "ANTHROPIC_API_KEY", "RAZORPAY_KEY_ID")
    return not any(configured[name] for name in elsewhere) and not (home / "postgres" / "data").exists()


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
        keys = await demo_keys(database, known, ZoneInfo(settings.timezone))
        if settings.oidc_client_id == SANDBOX_OIDC_CLIENT_ID:
            await demo_members(database)
        return keys
    finally:
        await database.close()


def _seed(settings: Settings, url: str, keys: dict[str, str], status: Status) -> None:
    """Plays the month. A failure is a line: everything works with fewer data, too."""
    from api.cli.processes.seeding import SeedFailed, seed_month  # noqa: PLC0415 - imports billing and its duties

    _console.print(f"inventing {DAYS} days of usage (none: --empty)")
    known = {("demo", "grace"): keys["tenant_admin_key"], ("demo", "ada"): keys["chat_key"]}
    try:
        done = asyncio.run(seed_month(settings, url, known, status.update))
    except SeedFailed as error:
        _console.print(f"[yellow]{escape(str(error))}[/]")
        return
    _console.print(f"  {done.answered} requests answered, {done.refused} refused by limits, {done.days} days")


def _banner(url: str, keys: dict[str, str], links: Sequence[tuple[str, str]], running: Laptop, home: Path) -> None:
    _console.print()
    _console.print(f"[bold]Naka[/] is up: [bold]{url}[/]")
    for part in running.parts:
        kind = "[green]real[/]     " if part.real else "[yellow]simulated[/]"
        _console.print(f"  {part.name:10} {kind}  {part.where}", soft_wrap=True)
    _console.print(f"Background duties: naka worker   (log: {home / 'worker.log'})", soft_wrap=True)
    _console.print(
        f"\nSign in (a link works once, for {LINKS_FOR_MIN} minutes; `naka sign-in` prints new ones):",
        soft_wrap=True,
    )
    for role, link in links:
        _console.print(f"  {role:13} {link}", soft_wrap=True)
    if any(part.name == "Sign-in" and not part.real for part in running.parts):
        _console.print(f"  or choose a person: {url}/sign-in", soft_wrap=True)
    _console.print(f"\nKeys for trying it, and for scripts: {home / 'demo.json'}", soft_wrap=True)
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
