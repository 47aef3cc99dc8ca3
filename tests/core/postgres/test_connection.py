"""`connect`: what it sends once connected, and what it leaves behind when it fails."""

import asyncio
from typing import Any

import asyncpg
import pytest

from core.postgres.connection import Connection, connect, connect_keyed
from core.postgres.url import Pooler, parse


@pytest.mark.parametrize(("pooler", "sent"), [("none", 0), ("transaction", 0), ("session", 1)])
async def test_settings_cost_a_statement_only_behind_a_pooler_with_sessions(
    database_url: str, monkeypatch: pytest.MonkeyPatch, pooler: Pooler, sent: int
) -> None:
    statements: list[str] = []
    execute = asyncpg.Connection.execute

    async def record(self: Connection, query: str, *arguments: Any, **options: Any) -> Any:
        statements.append(query)
        return await execute(self, query, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "execute", record)

    connection = await connect_keyed(parse(database_url, pooler), "test", timeout_s=5)

    assert len(statements) == sent, statements
    async with connection.transaction():
        assert await connection.fetchval("SHOW enable_seqscan") == "off"
    await connection.close()


@pytest.mark.parametrize("error", [None, asyncpg.InsufficientPrivilegeError("refused")])
async def test_a_failed_or_cancelled_start_closes_the_connection(
    database_url: str, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    reached = asyncio.Event()
    opened: list[Connection] = []

    async def fail_or_hang(self: Connection, *_: Any, **__: Any) -> None:
        opened.append(self)
        reached.set()
        if error is not None:
            raise error
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncpg.Connection, "execute", fail_or_hang)
    connecting = asyncio.create_task(connect(parse(database_url, "session"), "test", timeout_s=5))
    await reached.wait()

    if error is None:
        connecting.cancel()
    with pytest.raises(asyncio.CancelledError if error is None else type(error)):
        await connecting

    assert [connection.is_closed() for connection in opened] == [True]
