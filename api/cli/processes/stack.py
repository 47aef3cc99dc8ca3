"""The run of `naka up`: servers and simulators, the schema, the demo, the API and the worker, until a signal.

The steps, and what happens when one fails, are those of `up`.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from api.cli.processes.children import start_children
from api.cli.processes.demo import DEMO_PLAN, demo_keys, write_private
from api.cli.processes.demo_people import PEOPLE, demo_members
from api.cli.processes.month import DAYS
from api.cli.processes.sign_in import LINKS_FOR_MIN, demo_links
from core.clock import DAY_MS, follow_test_clock
from core.postgres.database import Database
from core.settings import SANDBOX_ANTHROPIC_KEY, Settings, build_settings
from core.settings.sign_in import SANDBOX_OIDC_CLIENT_ID
from migrations.upgrade import migrate
from sandbox.daemon import ServerUnavailable
from sandbox.laptop import Laptop, laptop

_PAISE_PER_USD = "8800"
"""For the demo's margin, where none is configured."""


def run(
    stack: ExitStack, api: "subprocess.Popen[bytes]", home: Path, url: str, console: Console, *, empty: bool
) -> None:
    """Starts everything else, and watches it until a signal or an error. `api`: its process, waiting for variables."""
    settings = build_settings(Path(".env"), naka_env="development")
    configured = _configured(settings)
    seeds = not empty and _is_new(home, configured)
    with console.status("starting") as status:

        def tell(doing: str) -> None:
            status.update(doing)
            if not console.is_terminal:
                console.print(doing)

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
            api,
            home,
            configured | started,
            url,
            when_ready=lambda: _seed(settings, url, keys, console, status) if seeds else None,
        )
        links = asyncio.run(demo_links(settings, url, keys))
        sandbox = {
            "webhook_secret": running.environment.get("RAZORPAY_WEBHOOK_SECRET"),
            "razorpay_url": running.environment.get("RAZORPAY_BASE_URL"),
        }
        demo = {"url": url, **keys, **sandbox, "anthropic_url": settings.anthropic_base_url}
        write_private(home / "demo.json", json.dumps(demo, indent=2) + "\n")
    _banner(console, url, keys, links, running, home)
    try:
        _watch(running, home)
    finally:
        console.print("stopping")


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


def _seed(settings: Settings, url: str, keys: dict[str, str], console: Console, status: Status) -> None:
    """Plays the month. A failure is a line: everything works with fewer data, too."""
    from api.cli.processes.seeding import SeedFailed, seed_month  # noqa: PLC0415 - imports billing and its duties

    console.print(f"inventing {DAYS} days of usage (none: --empty)")
    known = {("demo", "grace"): keys["tenant_admin_key"], ("demo", "ada"): keys["chat_key"]}
    try:
        done = asyncio.run(seed_month(settings, url, known, status.update))
    except SeedFailed as error:
        console.print(f"[yellow]{escape(str(error))}[/]")
        return
    console.print(f"  {done.answered} requests answered, {done.refused} refused by limits, {done.days} days")


def _banner(
    console: Console,
    url: str,
    keys: dict[str, str],
    links: Sequence[tuple[str, str]],
    running: Laptop,
    home: Path,
) -> None:
    console.print()
    console.print(f"[bold]Naka[/] is up: [bold]{url}[/]")
    for part in running.parts:
        kind = "[green]real[/]     " if part.real else "[yellow]simulated[/]"
        console.print(f"  {part.name:10} {kind}  {part.where}", soft_wrap=True)
    console.print(f"Background duties: naka worker   (log: {home / 'worker.log'})", soft_wrap=True)
    console.print(
        f"\nSign in (a link works once, for {LINKS_FOR_MIN} minutes; `naka sign-in` prints new ones):",
        soft_wrap=True,
    )
    for role, link in links:
        console.print(f"  {role:13} {link}", soft_wrap=True)
    if any(part.name == "Sign-in" and not part.real for part in running.parts):
        console.print(f"  or choose a person: {url}/sign-in", soft_wrap=True)
    console.print(f"\nKeys for trying it, and for scripts: {home / 'demo.json'}", soft_wrap=True)
    console.print("Ask from a terminal:\n", soft_wrap=True)
    command = (
        f"curl -N {url}/chat -H 'authorization: Bearer {keys['chat_key']}' "
        "-H 'content-type: application/json' -d '{\"message\": \"What is a webhook?\"}'"
    )
    console.print(f"  {command}\n", soft_wrap=True, markup=False)
    console.print("Ctrl-C stops everything; the data stays.")


def _watch(running: Laptop, home: Path) -> None:
    """Waits for a stop signal. Raises ServerUnavailable when a process ends."""
    while True:
        time.sleep(0.5)
        for name, process in running.children.items():
            if process.poll() is not None:
                raise ServerUnavailable(f"{name} stopped unexpectedly: see the logs in {home}")
