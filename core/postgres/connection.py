"""`connect`, the only way to open a Postgres connection. Postgres down: raises what asyncpg raises.

With a pooler (`DATABASE_POOLER`), no startup parameter is sent that PgBouncer refuses: settings are made after
connecting (*session*), or inside each transaction (*transaction*), where a statement that needs one gets a transaction
of its own, and statements have no names. LISTEN needs a session, so the worker's queue uses DATABASE_DIRECT_URL.
"""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from asyncpg.transaction import Transaction

from core.errors import NakaError
from core.postgres.url import PostgresUrl

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_NAME = "application_name"
_CHECK_CLIENT = {"client_connection_check_interval": "1s"}
"""Postgres ends a statement whose client is gone. Otherwise one that waits for a lock keeps its backend, and each retry
adds another."""
_KEYED_PLANS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
"""A plan made while a table was small must not scan it once it has grown."""


class UnexpectedPooler(NakaError):
    """DATABASE_URL leads to a pooler, but DATABASE_POOLER is none."""

    def __init__(self) -> None:
        super().__init__(
            "DATABASE_URL leads to a pooler that refuses startup parameters: "
            "set DATABASE_POOLER to session or transaction"
        )


async def connect(
    url: PostgresUrl,
    name: str,
    *,
    timeout_s: float,
    command_timeout_s: float | None = None,
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """Opens a connection with this application name and server settings. `timeout_s` bounds connecting.

    Raises STORE_ERRORS.
    """
    startup = {_NAME: name, **url.server_settings}
    wanted = dict(settings or {})
    if url.pooler != "transaction":  # in that mode the backend's client is the pooler
        wanted = {**_CHECK_CLIENT, **wanted}
    if url.pooler == "none":
        startup |= wanted
    else:
        wanted = {**{key: value for key, value in url.server_settings.items() if key != _NAME}, **wanted}
        startup = {_NAME: startup[_NAME]}
    arguments = url.arguments()
    if url.shuffles and url.hosts:
        pairs = random.sample(list(zip(url.hosts, url.ports, strict=True)), len(url.hosts))
        arguments |= {"host": [host for host, _ in pairs], "port": [port for _, port in pairs]}
    if url.pooler != "none":
        arguments["connection_class"] = _Pooled
    if url.pooler == "transaction":
        arguments["statement_cache_size"] = 0
    connection: Connection = await asyncpg.connect(
        **arguments,
        timeout=url.connect_timeout_s or timeout_s,
        command_timeout=command_timeout_s,
        server_settings=startup,
    )
    try:
        _set_socket_options(connection, url)
        if url.pooler == "transaction":  # isinstance() tells nothing: asyncpg makes it true of every connection
            cast("_Pooled", connection).local_settings = _as_statements("SET LOCAL", wanted)
        elif url.pooler == "session" and wanted:
            await connection.execute(_as_statements("SET", wanted))
    except BaseException:  # cancelled, too: the caller never gets the connection
        connection.terminate()
        raise
    return connection


async def connect_keyed(
    url: PostgresUrl, name: str, *, timeout_s: float, command_timeout_s: float | None = None
) -> Connection:
    """Opens a connection for a few statements by key, on tables of any size. Raises as `connect`."""
    return await connect(url, name, timeout_s=timeout_s, command_timeout_s=command_timeout_s, settings=_KEYED_PLANS)


async def check_pooler(url: PostgresUrl, *, timeout_s: float) -> None:
    """Connects with server settings. Raises UnexpectedPooler, or what `connect` raises."""
    try:
        connection = await connect_keyed(url, "naka check", timeout_s=timeout_s)
    except asyncpg.ProtocolViolationError as error:
        if "unsupported startup parameter" in str(error):
            raise UnexpectedPooler from error
        raise
    await connection.close(timeout=timeout_s)


class _Pooled(Connection):
    """A connection through a pooler. Each of its transactions starts with `local_settings`."""

    local_settings = ""

    def get_reset_query(self) -> str:
        """Returns no query: Naka leaves no state behind, and `RESET ALL` would undo the session's settings."""
        return ""

    def transaction(self, *args: Any, **options: Any) -> Transaction:
        """Returns a transaction that makes the settings."""
        del args  # asyncpg takes none
        return _LocalTransaction(
            self, options.get("isolation"), options.get("readonly", False), options.get("deferrable", False)
        )

    async def _execute(self, *args: Any, **options: Any) -> Any:
        """Runs a statement of `fetch` and the like inside a transaction, where alone the settings apply."""
        if not self.local_settings or self.is_in_transaction():
            return await super()._execute(*args, **options)  # type: ignore[misc]
        async with self.transaction():
            return await super()._execute(*args, **options)  # type: ignore[misc]


class _LocalTransaction(Transaction):
    def __init__(self, connection: "_Pooled", *options: Any) -> None:
        super().__init__(connection, *options)
        self._settings = connection.local_settings

    async def start(self) -> None:
        """Begins, then makes the settings; a savepoint inherits them from its transaction."""
        await super().start()
        if self._settings and not self._nested:  # type: ignore[attr-defined]
            await self._connection.execute(self._settings)  # type: ignore[attr-defined]


def _as_statements(command: str, settings: Mapping[str, str]) -> str:
    """Returns the commands as one text, for one round trip. Names are trusted or were validated; values are quoted."""
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return "; ".join(f"{command} {name} = '{value}'" for name, value in quoted.items())


def _set_socket_options(connection: Connection, url: PostgresUrl) -> None:
    if not url.socket_options:
        return
    raw = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    for level, option, value in url.socket_options:
        if raw.family.name != "AF_UNIX":
            raw.setsockopt(level, option, value)
