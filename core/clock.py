"""Time as the project counts it: milliseconds since 1970, integers, UTC. Zones matter only to `metering.windows`."""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """This process's clock. It orders nothing that costs money: grants carry Redis's or Postgres's time."""
    return time.time_ns() // 1_000_000


def to_datetime(at_ms: int) -> datetime:
    """The same moment as an aware datetime in UTC."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime; exact to the millisecond."""
    delta = at - datetime.fromtimestamp(0, UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
