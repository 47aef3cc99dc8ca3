"""Connections as the schema's owner and as the application."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests import servers
from tests.servers import asyncpg_dsn


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Any]:
    """The schema's owner."""
    connection = await asyncpg.connect(asyncpg_dsn(servers.owner(database_url)))
    yield connection
    await connection.close()


@pytest.fixture
async def application(database_url: str) -> AsyncIterator[Any]:
    """The application's role, as `naka serve` uses it."""
    connection = await asyncpg.connect(asyncpg_dsn(database_url))
    yield connection
    await connection.close()
