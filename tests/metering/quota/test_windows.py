"""Minutes, days and months: names, borders in any zone, and no gaps between them."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import to_datetime, to_ms
from metering.quota.windows import Calendar, Window, WindowKind, day_start_ms, minute_window

ZONES = (
    "Asia/Kolkata",
    "Europe/London",
    "America/Santiago",  # its clocks jump from 24:00 to 01:00: one day has no midnight
    "America/Havana",  # and here from 01:00 back to 00:00: one day has two
    "Africa/Cairo",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "America/New_York",
    "Pacific/Chatham",
    "UTC",
)
HOUR_MS = 3_600_000
FIRST_MS, LAST_MS = (to_ms(datetime(year, 1, 1, tzinfo=UTC)) for year in (2024, 2037))
moments = st.integers(FIRST_MS, LAST_MS)
zones = st.sampled_from(ZONES)


def ms(*parts: int) -> int:
    return to_ms(datetime(*parts[:6], tzinfo=UTC))  # type: ignore[misc, arg-type]


def test_a_minute() -> None:
    at = ms(2026, 11, 22, 10, 5, 59) + 999
    assert minute_window(at) == Window(WindowKind.MINUTE, str(at // 60_000), ms(2026, 11, 22, 10, 5), at + 1)
    assert minute_window(at + 1).starts_ms == at + 1


def test_midnight_in_kolkata() -> None:
    calendar = Calendar("Asia/Kolkata")
    midnight = ms(2026, 11, 21, 18, 30)
    assert calendar.day(midnight - 1).name == "2026-11-21"
    assert calendar.day(midnight) == Window(WindowKind.DAY, "2026-11-22", midnight, midnight + 24 * HOUR_MS)
    assert calendar.date_of(midnight) == date(2026, 11, 22)


def test_months_in_kolkata() -> None:
    calendar = Calendar("Asia/Kolkata")
    december = ms(2026, 11, 30, 18, 30)
    assert calendar.month(december - 1).name == "2026-11"
    assert calendar.month(december) == Window(WindowKind.PERIOD, "2026-12", december, ms(2026, 12, 31, 18, 30))
    assert calendar.month(ms(2026, 12, 31, 18, 30)).name == "2027-01"
    assert calendar.month(ms(2028, 2, 29, 12)).ends_ms == ms(2028, 2, 29, 18, 30)


@pytest.mark.parametrize(
    ("zone", "day", "starts", "hours"),
    [
        ("Europe/London", date(2026, 3, 29), ms(2026, 3, 29), 23),
        ("Europe/London", date(2026, 10, 25), ms(2026, 10, 24, 23), 25),
        ("America/Santiago", date(2026, 9, 6), ms(2026, 9, 6, 4), 23),  # begins at 01:00, for there is no 00:00
        ("America/Santiago", date(2026, 4, 4), ms(2026, 4, 4, 3), 25),
        ("America/Havana", date(2026, 11, 1), ms(2026, 11, 1, 4), 25),  # begins at the first of its two midnights
        ("Australia/Lord_Howe", date(2026, 4, 5), ms(2026, 4, 4, 13), 24.5),
    ],
)
def test_days_on_which_the_clocks_change(zone: str, day: date, starts: int, hours: float) -> None:
    calendar = Calendar(zone)
    window = calendar.day(starts)
    assert window == Window(WindowKind.DAY, day.isoformat(), starts, starts + int(hours * HOUR_MS))
    assert Calendar(zone).day(starts - 1).ends_ms == starts
    assert Calendar(zone).day(starts - 1).name == (day - timedelta(days=1)).isoformat()


@given(zones, moments)
def test_a_moment_lies_in_its_windows(zone: str, at: int) -> None:
    calendar = Calendar(zone)
    local = to_datetime(at).astimezone(ZoneInfo(zone))
    assert calendar.day(at).covers(at)
    assert calendar.day(at).name == f"{local:%Y-%m-%d}"
    assert calendar.month(at).covers(at)
    assert calendar.month(at).name == f"{local:%Y-%m}"
    assert minute_window(at).covers(at)


@given(zones, moments)
def test_consecutive_windows_touch(zone: str, at: int) -> None:
    for windows in (Calendar(zone).day, Calendar(zone).month, minute_window):
        this = windows(at)
        following = windows(this.ends_ms)
        previous = windows(this.starts_ms - 1)
        assert following.starts_ms == this.ends_ms
        assert previous.ends_ms == this.starts_ms
        assert previous.name != this.name != following.name
        assert not this.covers(this.ends_ms)
        assert not this.covers(this.starts_ms - 1)


@given(zones, moments, st.lists(moments, max_size=5))
def test_a_calendar_answers_alike_whatever_it_was_asked_before(zone: str, at: int, before: list[int]) -> None:
    calendar = Calendar(zone)
    for other in (*before, at + 1, at - 1):
        calendar.day(other)
        calendar.month(other)
    assert calendar.day(at) == Calendar(zone).day(at)
    assert calendar.month(at) == Calendar(zone).month(at)


@given(zones, st.dates(date(2024, 1, 1), date(2036, 12, 31)))
def test_the_days_of_a_month_fill_it(zone: str, day: date) -> None:
    calendar = Calendar(zone)
    month = calendar.month(day_start_ms(day, calendar.zone))
    at, days = month.starts_ms, 0
    while at < month.ends_ms:
        at, days = calendar.day(at).ends_ms, days + 1
    assert at == month.ends_ms
    assert days == ((day.replace(day=1) + timedelta(days=32)).replace(day=1) - timedelta(days=1)).day
