"""Which errors of Postgres are an outage, and which are the fault of the row that was written: one list for everybody.

A row is at fault only where the error names its data: a value that does not fit its column, a constraint that it
breaks, a trigger that refuses it. Everything else that Postgres or its driver raises is an outage, whatever its cause:
away, refusing, full, locked, cancelled, timed out, read-only, its schema not ready. And whatever is raised while
connecting is an outage: no row was sent. An outage loses nothing: the row is kept and sent again.

This is an allow-list of faults on purpose. An error that nobody thought of delays a row; it never costs one.
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
"""Whatever Postgres, its driver or the pool raises. Which of them is an outage, `is_outage` tells."""

COLLISIONS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""Two transactions were in each other's way: undone, and worth another try at once."""

_ROW_FAULTS = (
    "21",  # cardinality: the same row twice in one batch
    "22",  # data exception: out of range, not valid in the encoding, not of the type
    "23",  # integrity constraint
    "44",  # WITH CHECK OPTION
    "54000",  # a value too large for its index
    "P0",  # raised by a trigger or function of our own
)
"""SQLSTATE classes and codes. Class 42 (undefined column, permission denied) is none: the row would fit the schema that
it was made for, and does again once a migration or a grant is done."""


class Collided(Unavailable):
    """The transaction was in another's way and was undone. Nothing was written; a second try usually succeeds."""


def driver_error(error: BaseException) -> BaseException:
    """Asyncpg's own error, which SQLAlchemy wraps twice."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return error
    return error.orig.__cause__ or error.orig


def is_row_fault(error: BaseException) -> bool:
    """Whether Postgres, or the driver before it, refuses the data of the row."""
    error = driver_error(error)
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_ROW_FAULTS)
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)  # a value that it cannot encode


def is_outage(error: BaseException) -> bool:
    """Whether the store is the reason, not what it was asked. Collisions are outages, too, once retries are used up."""
    return isinstance(error, STORE_ERRORS) and not is_row_fault(error)


def is_undone(error: BaseException) -> bool:
    """Whether the server itself said that the statement failed: then its transaction is rolled back for certain.

    A connection that broke, a FATAL that may have overtaken the answer, a time-out on our side: nobody knows.
    """
    error = driver_error(error)
    return isinstance(error, asyncpg.PostgresError) and getattr(error, "severity_en", None) == "ERROR"


@contextmanager
def outages_as_unavailable() -> Iterator[None]:
    """Turns an outage into `Unavailable`, a collision into `Collided`. The fault of a row passes."""
    try:
        yield
    except STORE_ERRORS as error:
        if isinstance(driver_error(error), COLLISIONS):
            raise Collided("the database is busy") from error
        if is_outage(error):
            raise Unavailable("the database does not answer") from error
        raise
