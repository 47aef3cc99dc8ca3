"""The monthly partitions of `usage_requests`, created ahead of time, so that an open always has its partition.

With a test clock, which may jump a year ahead, more of them are created.
"""

from datetime import timedelta
from itertools import pairwise
from typing import Any

from core.clock import follows_test_clock, now_ms, to_datetime, to_ms

_MONTHS_AHEAD = 2
_MONTHS_AHEAD_OF_A_TEST_CLOCK = 14


def months_around(at_ms: int) -> list[tuple[str, int, int]]:
    """(partition, first millisecond, first one after it) of the previous month, this one and those ahead; in UTC."""
    first = to_datetime(at_ms).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    starts = [(first - timedelta(days=1)).replace(day=1)]
    ahead = _MONTHS_AHEAD_OF_A_TEST_CLOCK if follows_test_clock() else _MONTHS_AHEAD
    while len(starts) < ahead + 3:
        starts.append((starts[-1] + timedelta(days=32)).replace(day=1))
    return [(f"usage_requests_{start:%Y_%m}", to_ms(start), to_ms(end)) for start, end in pairwise(starts)]


async def ensure_partitions(connection: Any, at_ms: int | None = None) -> None:
    """Creates the missing months, on an asyncpg connection. Safe to run in several processes at once.

    A function of the schema's owner does it: the application may not create tables.
    """
    for name, starts_ms, _ in months_around(now_ms() if at_ms is None else at_ms):
        if await connection.fetchval("SELECT to_regclass($1)", name) is None:
            await connection.execute("SELECT naka_make_month($1)", to_datetime(starts_ms).date())
