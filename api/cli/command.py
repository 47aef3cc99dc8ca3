"""The bootstrap of commands: settings, a service context for the operator, and output.

Changes are published after the commit when REDIS_URL is set. Redis down: caches of running processes expire by
themselves. Modules that most commands do not need (Redis, Razorpay) are imported on first use.
"""

import asyncio
import getpass
import inspect
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.schemas.pages import Page
from api.services.context import ServiceContext
from core.clock import follow_test_clock
from core.errors import Unavailable
from core.figures import group_digits
from core.logs import configure_logs
from core.postgres.database import Database
from core.resilience.outage import STORE_ERRORS, driver_error
from core.settings import Settings, SettingsError, read_settings
from core.tenancy.audit import Actor

if TYPE_CHECKING:
    from core.redis.changes import Changes

T = TypeVar("T")
HOME = Path(".naka")
_REDIS_TIMEOUT_S = 2

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Answer = BaseModel | Sequence[BaseModel]
"""An item, a list of items, or a page."""
Call = Callable[[ServiceContext], Awaitable[Answer]]
Command = Callable[..., Any]


def load_settings() -> Settings:
    """Reads settings from the environment, or without a database there, from `naka up` in this folder.

    Follows the test clock that they name, in development only. Raises SettingsError.
    """
    settings = read_settings(HOME)
    if settings.test_clock_file is not None and settings.naka_env == "development":
        follow_test_clock(settings.test_clock_file)
    group_digits(settings.digit_grouping)
    return settings


def load_database_settings() -> Settings:
    """Reads settings. Raises SettingsError, also without a database."""
    settings = load_settings()
    if not settings.database_url:
        raise SettingsError("DATABASE_URL is not set, and no `naka up` was started in this folder")
    return settings


class Group(typer.Typer):
    """A group of commands. `COMMANDS` (`api.cli.commands`) has its help."""

    def __init__(self) -> None:
        super().__init__(no_args_is_help=True)

    def answering(self, name: str, *columns: str, billing: bool = False) -> Callable[[Command], Command]:
        """Adds a command that prints what its call returns; see `answering`."""
        return lambda command: self.command(name)(answering(*columns, billing=billing)(command))


def answering(*columns: str, billing: bool = False) -> Callable[[Command], Command]:
    """Runs the service call that a command returns, as `run_service` does, and prints its answer.

    The command gets the option `--json`. Without it a list is printed as a table of `columns`.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(*, as_json: bool, **options: Any) -> None:
            answer: Answer = run_service(command(**options), billing=billing)
            if isinstance(answer, Page):
                answer = answer.items
            if isinstance(answer, BaseModel):
                show(answer, as_json=as_json)
            else:
                show_all(answer, columns, as_json=as_json)

        json = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
        parameters = [*inspect.signature(command).parameters.values(), json]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def run_service(work: Callable[[ServiceContext], Awaitable[T]], *, billing: bool = False) -> T:
    """Runs services as the operator. `billing`: they need Redis and Razorpay's client, too. Raises SettingsError."""
    configure_logs(level="warning", as_json=False)  # to standard error: the output is the answer alone
    return asyncio.run(_run_service(work, load_database_settings(), billing=billing))


async def _run_service(work: Callable[[ServiceContext], Awaitable[T]], settings: Settings, *, billing: bool) -> T:
    async with AsyncExitStack() as stack:
        database = Database(settings.postgres, pool_size=1, timeout_s=settings.store_deadline_s)
        stack.push_async_callback(database.close)
        publisher, billing_context = None, None
        if settings.redis_url:
            publisher = _LazyPublisher(settings.redis_url)
            stack.push_async_callback(publisher.close)
        if billing and publisher is not None:
            from billing.context import build_billing_context  # noqa: PLC0415 - imports the Razorpay SDK

            billing_context = build_billing_context(settings, database, publisher.connected())
            stack.callback(billing_context.razorpay.close)
        return await work(
            ServiceContext(
                settings=settings,
                database=database,
                changes=publisher,
                actor=Actor(f"cli:{_me()}"),
                billing_context=billing_context,
            )
        )


class _LazyPublisher:
    """Publishes changes. Redis's client takes as long to import as SQLAlchemy, and lists do not publish."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Any = None

    def connected(self) -> "Changes":
        """The publisher itself. Raises SettingsError for a URL that Redis's client refuses."""
        from core.redis.changes import Changes  # noqa: PLC0415 - as the class says
        from core.redis.client import connect_redis  # noqa: PLC0415 - as above

        if self._redis is None:
            try:
                self._redis = connect_redis(self._url, timeout_s=_REDIS_TIMEOUT_S)
            except ValueError as error:
                raise SettingsError("REDIS_URL is not the URL of a Redis") from error
        return Changes(self._redis)

    async def publish(self, tenant_id: UUID | None) -> None:
        """Publishes one change."""
        await self.connected().publish(tenant_id)

    async def close(self) -> None:
        """Closes the connection."""
        if self._redis is not None:
            await self._redis.aclose()


def show(item: BaseModel, *, as_json: bool) -> None:
    """Prints one item: JSON, or a line for each field."""
    if as_json:
        typer.echo(item.model_dump_json())
        return
    fields = item.model_dump(mode="json").items()
    _print_table([(f"[bold]{escape(name)}[/bold]", escape(_text(value))) for name, value in fields])


def show_all(items: Sequence[BaseModel], columns: Sequence[str], *, as_json: bool) -> None:
    """Prints a list: JSON with every field, or a table of `columns`."""
    rows = [item.model_dump(mode="json") for item in items]
    if as_json:
        typer.echo(msgspec.json.encode(rows).decode())
        return
    _print_table([[escape(_text(row[column])) for column in columns] for row in rows], columns)


def _print_table(rows: Sequence[Sequence[str]], columns: Sequence[str] = ()) -> None:
    """Prints rows of markup."""
    table = Table(*columns, show_header=bool(columns), box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    wide_console().print(table)


def wide_console() -> Console:
    """A console that cuts and wraps nothing without a terminal: a pipe has no width."""
    console = Console()
    return console if console.is_terminal else Console(width=10_000)


def in_one_line(error: BaseException) -> str:
    """The message for an operator: what to check, never a secret."""
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
    """The message for an error of Postgres. The order of the table matters: some errors are subclasses of others."""
    for kind, words in _POSTGRES_MESSAGES:
        if isinstance(error, kind):
            return words
    if isinstance(error, asyncpg.PostgresError):
        return f"the database refuses: {type(error).__name__}"
    return f"the database does not answer: {type(error).__name__}"


_NO_SCHEMA = "the database schema is missing or outdated: run `naka migrate`"
_POSTGRES_MESSAGES: Sequence[tuple[type[BaseException], str]] = (
    (asyncpg.UndefinedTableError, _NO_SCHEMA),
    (asyncpg.UndefinedColumnError, _NO_SCHEMA),
    (
        asyncpg.InsufficientPrivilegeError,
        "this database role lacks a privilege: run `naka migrate`, with DATABASE_MIGRATION_URL of the owner",
    ),
    (asyncpg.InvalidCatalogNameError, "no such database: see DATABASE_URL"),
    (asyncpg.InvalidAuthorizationSpecificationError, "the database refuses this user or password: see DATABASE_URL"),
    (asyncpg.TargetServerAttributeNotMatched, "no server in DATABASE_URL matches its target_session_attrs"),
    (socket.gaierror, "the database's host name does not resolve: see DATABASE_URL"),
    (ssl.SSLError, "TLS with the database failed: see sslmode and sslrootcert in DATABASE_URL"),
)


def _me() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return f"uid {os.getuid()}"


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
