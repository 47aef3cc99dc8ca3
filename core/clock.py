"""Time in integer milliseconds since 1970, UTC. Time zones matter only to `metering.quota.windows`.

Development may use a test clock: a file with an offset in milliseconds, read by each process within 5 ms; without a
number in it the offset is 0. Cache ages, timeouts and heartbeats use real time.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

DAY_MS = 86_400_000
_READ_EVERY_S = 0.005


class _TestClock:
    """The file, read at most every 5 ms."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_s = float("-inf")
        self._offset_ms = 0

    def offset_ms(self) -> int:
        """Returns the file's offset, at most 5 ms old."""
        now_s = time.monotonic()
        if now_s - self._read_s >= _READ_EVERY_S:
            self._read_s = now_s
            try:
                self._offset_ms = int(self._path.read_text() or 0)
            except (OSError, ValueError):
                self._offset_ms = 0
        return self._offset_ms


_test_clock: _TestClock | None = None


def follow_test_clock(path: Path) -> None:
    """Shifts this process's clock by the file's offset from now on. Never in production."""
    global _test_clock  # noqa: PLW0603 - one clock per process; a parameter could be forgotten
    _test_clock = _TestClock(path)


def stop_following() -> None:
    """Returns to real time; for tests, which share a process."""
    global _test_clock  # noqa: PLW0603 - as above
    _test_clock = None


def follows_test_clock() -> bool:
    """Whether a test clock is set."""
    return _test_clock is not None


def offset_ms() -> int:
    """Returns the test clock's offset, 0 without one. Add it to times read from Redis or Postgres."""
    return 0 if _test_clock is None else _test_clock.offset_ms()


def now_ms() -> int:
    """Returns this process's time. Grants use the time of Redis or Postgres instead."""
    return time.time_ns() // 1_000_000 + offset_ms()


def to_datetime(at_ms: int) -> datetime:
    """Returns the time as an aware datetime in UTC."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


def to_ms(at: datetime) -> int:
    """Returns the milliseconds since 1970 of an aware datetime, exactly."""
    delta = at - datetime.fromtimestamp(0, UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def to_iso(at_ms: int) -> str:
    """Returns the time in ISO 8601, UTC, with a Z."""
    return to_datetime(at_ms).isoformat().replace("+00:00", "Z")
