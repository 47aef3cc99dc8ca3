"""The two roles that connect to a database: the owner of its schema, and the application."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from core.postgres.database import asyncpg_dsn
from tests import servers


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Any]:
    """The schema's owner."""
    connection = await asyncpg.connect(asyncpg_dsn(servers.owner(database_url)))
    yield connection
    await connection.close()


@pytest.fixture
async def application(database_url: str) -> AsyncIterator[Any]:
    """What `naka serve` connects as."""
    connection = await asyncpg.connect(asyncpg_dsn(database_url))
    yield connection
    await connection.close()
