"""Windows of time: the minute, the operator's day, and the billing period. Pure; moments are arguments.

A window's name is unique among its kind, so a new window starts at zero by itself. Days and months are in the
operator's time zone, minutes in UTC. Unless billing has projected a period, it is the calendar month.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from core.clock import to_datetime, to_ms

MINUTE_MS = 60_000


class WindowKind(StrEnum):
    """The kind of window that a limit counts in."""

    MINUTE = "minute"
    DAY = "day"
    PERIOD = "period"


@dataclass(frozen=True, slots=True)
class Window:
    """`name` is unique within its kind; it covers `starts_ms <= t < ends_ms`."""

    kind: WindowKind
    name: str
    starts_ms: int
    ends_ms: int

    def covers(self, at_ms: int) -> bool:
        """Whether the moment lies in it."""
        return self.starts_ms <= at_ms < self.ends_ms


def minute_window(at_ms: int) -> Window:
    """The minute of a moment, named by its number since 1970."""
    number = at_ms // MINUTE_MS
    return Window(WindowKind.MINUTE, str(number), number * MINUTE_MS, (number + 1) * MINUTE_MS)


def day_start_ms(day: date, zone: ZoneInfo) -> int:
    """The first millisecond of a day of the operator."""
    return to_ms(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC))


class Calendar:
    """The operator's days and months. Caches the last answer, which nearly every call asks for again."""

    def __init__(self, timezone: str) -> None:
        self.zone = ZoneInfo(timezone)
        self._day: Window | None = None
        self._month: Window | None = None

    def date_of(self, at_ms: int) -> date:
        """The operator's date of a moment."""
        return to_datetime(at_ms).astimezone(self.zone).date()

    def day(self, at_ms: int) -> Window:
        """The operator's day of a moment, named by its ISO date."""
        if self._day is None or not self._day.covers(at_ms):
            today = self.date_of(at_ms)
            self._day = Window(
                WindowKind.DAY,
                today.isoformat(),
                day_start_ms(today, self.zone),
                day_start_ms(today + timedelta(days=1), self.zone),
            )
        return self._day

    def month(self, at_ms: int) -> Window:
        """The calendar month of a moment, named `YYYY-MM`."""
        if self._month is None or not self._month.covers(at_ms):
            first = self.date_of(at_ms).replace(day=1)
            following = (first + timedelta(days=32)).replace(day=1)
            self._month = Window(
                WindowKind.PERIOD,
                f"{first:%Y-%m}",
                day_start_ms(first, self.zone),
                day_start_ms(following, self.zone),
            )
        return self._month
