"""Bounds of billing cycles: midnight in India, but the first begins when it is paid.

Days 29 to 31 are clamped to the last day of a shorter month only; an assumption.
"""

import calendar
from datetime import datetime, timedelta, timezone

IST = timezone(timedelta(hours=5, minutes=30))
DAY_S = 86_400
PERIODS = ("daily", "weekly", "monthly", "quarterly", "yearly")
_DAYS = {"daily": 1, "weekly": 7}
_MONTHS = {"monthly": 1, "quarterly": 3, "yearly": 12}
_MAX_CYCLES = {"daily": 36_500, "weekly": 5200, "monthly": 1200, "quarterly": 400, "yearly": 100}


def in_india(at: int) -> datetime:
    """The time in India, from Unix seconds."""
    return datetime.fromtimestamp(at, IST)


def boundary(anchor: int, cycles: int, period: str, interval: int) -> int:
    """End of the cycle number `cycles` since `anchor`, Unix seconds; the anchor itself for 0."""
    if cycles == 0:
        return anchor
    first = in_india(anchor)
    if period in _DAYS:
        day = (first + timedelta(days=cycles * interval * _DAYS[period])).replace(hour=0, minute=0, second=0)
        return int(day.timestamp())
    months = first.year * 12 + first.month - 1 + cycles * interval * _MONTHS[period]
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return int(datetime(year, month + 1, min(first.day, last), tzinfo=IST).timestamp())


def most_cycles(period: str, interval: int) -> int:
    """Razorpay's largest `total_count`: about a hundred years."""
    return max(1, _MAX_CYCLES[period] // interval)
