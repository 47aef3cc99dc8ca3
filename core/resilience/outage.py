"""Classification of Postgres errors into outages and faults of the written row.

A row is at fault only if the error names its data. Every other error of Postgres or its driver is an outage, as is any
error while connecting; the row is kept and sent again. So an unforeseen error delays a row but never loses it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from core.errors import Unavailable

STORE_ERRORS = (
    OSError,  # and TimeoutError
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    DBAPIError,
    PoolTimeoutError,
)
"""Every error of Postgres, its driver or a pool; `is_outage` classifies them."""

COLLISIONS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""Conflicts between transactions: rolled back, and worth a retry at once."""

_ROW_FAULTS = (
    "21",  # cardinality: the same row twice in one batch
    "22",  # data exception: out of range, not valid in the encoding, not of the type
    "23",  # integrity constraint
    "44",  # WITH CHECK OPTION
    "54000",  # a value too large for its index
    "P0",  # raised by our own triggers and functions
)
"""SQLSTATE classes and codes. Not class 42 (undefined column, permission denied): the row will fit once a migration or
grant is done."""


class Collided(Unavailable):
    """A conflict rolled the transaction back. Nothing was written; a retry usually succeeds."""


def driver_error(error: BaseException) -> BaseException:
    """Returns asyncpg's error, which SQLAlchemy wraps twice."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return error
    return error.orig.__cause__ or error.orig


def is_row_fault(error: BaseException) -> bool:
    """Whether Postgres or its driver refuses the row's data."""
    error = driver_error(error)
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_ROW_FAULTS)
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)  # a value asyncpg cannot encode


def is_outage(error: BaseException) -> bool:
    """Whether the store failed, rather than the row. A conflict counts as an outage once its retries are used up."""
    return isinstance(error, STORE_ERRORS) and not is_row_fault(error)


def is_undone(error: BaseException) -> bool:
    """Whether the server itself reported the failure, so the transaction is certainly rolled back.

    Not known after a lost connection, a FATAL that may have overtaken the answer, or a timeout on our side.
    """
    error = driver_error(error)
    return isinstance(error, asyncpg.PostgresError) and getattr(error, "severity_en", None) == "ERROR"


@contextmanager
def outages_as_unavailable() -> Iterator[None]:
    """Turns an outage into `Unavailable` and a conflict into `Collided`; a row fault is raised unchanged."""
    try:
        yield
    except STORE_ERRORS as error:
        if isinstance(driver_error(error), COLLISIONS):
            raise Collided("The database is busy. Try again.") from error
        if is_outage(error):
            raise Unavailable from error
        raise
