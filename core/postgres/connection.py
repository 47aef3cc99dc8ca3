"""The one way to connect to Postgres: `connect`, from a `PostgresUrl`.

With a pooler (`DATABASE_POOLER`) nothing is sent at the start that PgBouncer refuses. In *session* mode the settings
of a connection are made after it was opened, and last as long as it does. In *transaction* mode each transaction may
run on another server connection: settings are made inside it (`SET LOCAL`), a statement that needs one runs in a
transaction of its own, and no statement has a name. What needs a session (LISTEN) does not work there: the worker's
queue uses DATABASE_DIRECT_URL. Postgres away: raises what asyncpg raises.
"""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.transaction import Transaction

from core.errors import NakaError
from core.postgres.url import PostgresUrl

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_NAME = "application_name"
_NOTICED = {"client_connection_check_interval": "1s"}
"""Postgres looks whether its client is still there while a statement waits or runs. Without it a statement that hangs,
on a lock for instance, keeps its backend for as long as it hangs, and each new try adds another."""


class UnexpectedPooler(NakaError):
    """DATABASE_URL leads to a pooler, and DATABASE_POOLER says that there is none."""

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
    """A connection called `name`, with these `settings` of the server. `timeout_s` bounds connecting.

    Raises one of core.resilience.outage.STORE_ERRORS.
    """
    startup = {_NAME: name, **url.server_settings}
    wanted = dict(settings or {})
    if url.pooler != "transaction":  # there the client of a backend is the pooler
        wanted = {**_NOTICED, **wanted}
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
    _set_socket_options(connection, url)
    if isinstance(connection, _Pooled) and wanted:
        if url.pooler == "transaction":
            connection.local_settings = _as_statements("SET LOCAL", wanted)
        else:
            await connection.execute(_as_statements("SET", wanted))
    return connection


async def check_pooler(url: PostgresUrl, *, timeout_s: float) -> None:
    """Connects as the lanes do. Raises UnexpectedPooler, or what `connect` raises."""
    try:
        connection = await connect(url, "naka check", timeout_s=timeout_s, settings={"jit": "off"})
    except asyncpg.ProtocolViolationError as error:
        if "unsupported startup parameter" in str(error):
            raise UnexpectedPooler from error
        raise
    await connection.close(timeout=timeout_s)


class _Pooled(Connection):
    """A connection through a pooler. `local_settings` are made at the start of each of its transactions."""

    local_settings = ""

    def get_reset_query(self) -> str:
        """Nothing: Naka leaves no state behind, and `RESET ALL` would undo the settings of a session."""
        return ""

    def transaction(self, *args: Any, **options: Any) -> Transaction:
        """As asyncpg's, with the settings."""
        del args  # asyncpg takes none
        return _LocalTransaction(
            self, options.get("isolation"), options.get("readonly", False), options.get("deferrable", False)
        )

    async def _execute(self, *args: Any, **options: Any) -> Any:
        """What `fetch` and the others end in. The settings count only inside a transaction."""
        if not self.local_settings or self.is_in_transaction():
            return await super()._execute(*args, **options)  # type: ignore[misc]
        async with self.transaction():
            return await super()._execute(*args, **options)  # type: ignore[misc]


class _LocalTransaction(Transaction):
    def __init__(self, connection: "_Pooled", *options: Any) -> None:
        super().__init__(connection, *options)
        self._settings = connection.local_settings

    async def start(self) -> None:
        """Begins, then makes the settings; a savepoint has them from its transaction."""
        await super().start()
        if self._settings and not self._nested:  # type: ignore[attr-defined]
            await self._connection.execute(self._settings)  # type: ignore[attr-defined]


def _as_statements(command: str, settings: Mapping[str, str]) -> str:
    """One text of several commands: one round trip. Names are ours or were matched; values are quoted."""
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return "; ".join(f"{command} {name} = '{value}'" for name, value in quoted.items())


def _set_socket_options(connection: Connection, url: PostgresUrl) -> None:
    if not url.socket_options:
        return
    raw = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
    for level, option, value in url.socket_options:
        if raw.family.name != "AF_UNIX":
            raw.setsockopt(level, option, value)
