"""One command, one transaction: settings, a session, who acts, and who hears of it afterwards.

Commands read as the operations that they run. What changed is published after the commit when Redis is configured;
Redis away costs nothing but the age of a cache.
"""

import asyncio
import getpass
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from api.services.context import ServiceContext
from core.clock import follow_test_clock
from core.errors import Unavailable
from core.logs import configure_logs
from core.postgres.database import Database
from core.redis.changes import Changes
from core.redis.client import connect_redis
from core.resilience.outage import STORE_ERRORS, driver_error
from core.settings import Settings, SettingsError, read_settings
from core.tenancy.audit import Actor

T = TypeVar("T")
HOME = Path(".naka")
_REDIS_TIMEOUT_S = 2

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@dataclass
class CommandContext:
    """What a command works with. `changed` collects the tenants whose caches are to be dropped; None: everybody's."""

    session: AsyncSession
    actor: Actor
    settings: Settings
    changed: list[UUID | None] = field(default_factory=list)

    @property
    def zone(self) -> ZoneInfo:
        """The operator's days and months."""
        return ZoneInfo(self.settings.timezone)


def load_settings() -> Settings:
    """From the environment; without a database there, that of `naka up` in this folder.

    Its test clock is followed from here on, but not in production. Raises SettingsError.
    """
    settings = read_settings(HOME)
    if settings.test_clock_file is not None and settings.naka_env == "development":
        follow_test_clock(settings.test_clock_file)
    return settings


def load_database_settings() -> Settings:
    """The same, with a database for sure. Raises SettingsError."""
    settings = load_settings()
    if not settings.database_url:
        raise SettingsError("DATABASE_URL is not set, and no `naka up` was started in this folder")
    return settings


def run_command(work: Callable[[CommandContext], Awaitable[T]]) -> T:
    """Runs `work` in one transaction and tells the other processes what it changed."""
    configure_logs(level="warning", as_json=False)  # to standard error: the output is the answer alone
    return asyncio.run(_at_desk(work, load_database_settings()))


async def _at_desk(work: Callable[[CommandContext], Awaitable[T]], settings: Settings) -> T:
    database = Database(settings.postgres, pool_size=1, timeout_s=settings.store_deadline_s)
    try:
        async with database.session() as session:
            context = CommandContext(session, acting(), settings)
            result = await work(context)
    finally:
        await database.close()
    if context.changed and settings.redis_url:
        await _publish(settings.redis_url, context.changed)
    return result


def run_service(work: Callable[[ServiceContext], Awaitable[T]], *, billing: bool = False) -> T:
    """Runs services as the operator. `billing`: they need Redis and Razorpay's client, too. Raises SettingsError."""
    configure_logs(level="warning", as_json=False)  # to standard error: the output is the answer alone
    return asyncio.run(_run_service(work, load_database_settings(), billing=billing))


async def _run_service(work: Callable[[ServiceContext], Awaitable[T]], settings: Settings, *, billing: bool) -> T:
    async with AsyncExitStack() as stack:
        database = Database(settings.postgres, pool_size=1, timeout_s=settings.store_deadline_s)
        stack.push_async_callback(database.close)
        changes, billing_context = None, None
        if settings.redis_url:
            redis = _connect_redis(settings.redis_url)
            stack.push_async_callback(redis.aclose)
            changes = Changes(redis)
        if billing and changes is not None:
            from billing.context import build_billing_context  # noqa: PLC0415 - imports the Razorpay SDK

            billing_context = build_billing_context(settings, database, changes)
            stack.callback(billing_context.razorpay.close)
        return await work(
            ServiceContext(
                settings=settings,
                database=database,
                changes=changes,
                actor=acting(),
                billing_context=billing_context,
            )
        )


def _connect_redis(url: str) -> Any:
    try:
        return connect_redis(url, timeout_s=_REDIS_TIMEOUT_S)
    except ValueError as error:
        raise SettingsError("REDIS_URL is not the URL of a Redis") from error


def acting() -> Actor:
    """Who the audit log names for a command."""
    return Actor(f"cli:{_me()}")


async def _publish(url: str, changed: Sequence[UUID | None]) -> None:
    try:
        redis = connect_redis(url, timeout_s=_REDIS_TIMEOUT_S)
    except ValueError as error:
        raise SettingsError("done, but REDIS_URL is not the URL of a Redis: servers will notice later") from error
    try:
        for tenant_id in dict.fromkeys(changed):
            await Changes(redis).publish(tenant_id)
    finally:
        await redis.aclose()


def show(item: BaseModel, *, as_json: bool) -> None:
    """Prints one thing: JSON, or its fields below each other."""
    if as_json:
        typer.echo(item.model_dump_json())
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in item.model_dump(mode="json").items():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(_text(value)))
    _console().print(table)


def show_all(items: Sequence[BaseModel], columns: Sequence[str], *, as_json: bool) -> None:
    """Prints a list: JSON with every field, or a table of `columns`."""
    rows = [item.model_dump(mode="json") for item in items]
    if as_json:
        typer.echo(msgspec.json.encode(rows).decode())
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(escape(_text(row[column])) for column in columns))
    _console().print(table)


def in_one_line(error: BaseException) -> str:
    """What an operator is told of an error: what to look at, never a secret."""
    match error:
        case ValidationError():
            found = (f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
            return "; ".join(found)
        case Unavailable(__cause__=BaseException() as cause) if isinstance(cause, STORE_ERRORS):
            return _of_postgres(driver_error(cause))
        case _ if isinstance(error, STORE_ERRORS):
            return _of_postgres(driver_error(error))
        case _:
            return " ".join(str(error).split())


def _of_postgres(error: BaseException) -> str:
    """Only what did not answer is said not to answer; the order counts, as some kinds are kinds of others."""
    for kind, words in _SAID_OF_POSTGRES:
        if isinstance(error, kind):
            return words
    if isinstance(error, asyncpg.PostgresError):
        return f"the database refuses: {type(error).__name__}"
    return f"the database does not answer: {type(error).__name__}"


_NO_SCHEMA = "the database has not this version's schema: run `naka migrate`"
_SAID_OF_POSTGRES: Sequence[tuple[type[BaseException], str]] = (
    (asyncpg.UndefinedTableError, _NO_SCHEMA),
    (asyncpg.UndefinedColumnError, _NO_SCHEMA),
    (
        asyncpg.InsufficientPrivilegeError,
        "this database role may not do that: run `naka migrate`, with DATABASE_MIGRATION_URL of the owner",
    ),
    (asyncpg.InvalidCatalogNameError, "there is no such database: see DATABASE_URL"),
    (asyncpg.InvalidAuthorizationSpecificationError, "the database refuses this user or password: see DATABASE_URL"),
    (asyncpg.TargetServerAttributeNotMatched, "no server in DATABASE_URL is as its target_session_attrs asks"),
    (socket.gaierror, "the host of the database is not known: see DATABASE_URL"),
    (ssl.SSLError, "TLS with the database failed: see sslmode and sslrootcert in DATABASE_URL"),
)


def _me() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return f"uid {os.getuid()}"


def _console() -> Console:
    """Long ids are not cut where nobody looks: a pipe is as wide as it needs to be."""
    console = Console()
    return console if console.is_terminal else Console(width=10_000)


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case list() if all(isinstance(part, str) for part in value):
            return " ".join(value)
        case list() | dict():
            return msgspec.json.encode(value).decode()
        case _:
            return str(value)
