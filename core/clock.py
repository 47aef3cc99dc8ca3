"""Time as the project counts it: milliseconds since 1970, integers, UTC. Zones matter only to `metering.quota.windows`.

In development there may be a test clock: a file with the milliseconds by which the present is ahead. Whoever turns it
(the Razorpay simulator) writes the file, and every process that follows it lives in the same future within 20 ms. A
file that is missing, empty or no number says 0. Ages, time-outs and heartbeats keep to real time.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

_LOOK_EVERY_S = 0.02


class _TestClock:
    """Reads the file, now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_s = float("-inf")
        self._offset_ms = 0

    def offset_ms(self) -> int:
        """What the file says, at most 20 ms ago."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            try:
                self._offset_ms = int(self._path.read_text() or 0)
            except (OSError, ValueError):
                self._offset_ms = 0
        return self._offset_ms


_test_clock: _TestClock | None = None


def follow_test_clock(path: Path) -> None:
    """From now on this process lives as far ahead as the file says. Never in production."""
    global _test_clock  # noqa: PLW0603 - one process, one time: a clock handed around would be forgotten somewhere
    _test_clock = _TestClock(path)


def stop_following() -> None:
    """Back to the present; for tests, which share a process."""
    global _test_clock  # noqa: PLW0603 - as above
    _test_clock = None


def follows_test_clock() -> bool:
    """Whether there is a test clock, whatever it says."""
    return _test_clock is not None


def offset_ms() -> int:
    """How far ahead the test clock is; 0 without one. For whoever takes its time from Redis or Postgres."""
    return 0 if _test_clock is None else _test_clock.offset_ms()


def now_ms() -> int:
    """This process's clock. It orders nothing that costs money: grants carry Redis's or Postgres's time."""
    return time.time_ns() // 1_000_000 + offset_ms()


def to_datetime(at_ms: int) -> datetime:
    """The same moment as an aware datetime in UTC."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime; exact to the millisecond."""
    delta = at - datetime.fromtimestamp(0, UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def to_iso(at_ms: int) -> str:
    """The same moment as answers and messages write it: ISO 8601, in UTC, with a Z."""
    return to_datetime(at_ms).isoformat().replace("+00:00", "Z")
