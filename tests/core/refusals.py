"""Statements that Postgres must refuse."""

from typing import Any

import asyncpg
import pytest

DENIED = asyncpg.InsufficientPrivilegeError


async def refuses(connection: Any, statement: str, error: type[Exception] = DENIED) -> None:
    """Fails if the statement succeeds; rolls it back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except error:
        pass
    else:
        pytest.fail(f"let through: {statement}")
    finally:
        await transaction.rollback()
