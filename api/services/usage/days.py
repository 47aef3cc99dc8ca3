"""Days of the operator as the bounds of lists and reports."""

from datetime import date, datetime, timedelta

from api.schemas.moments import Day, Moment
from api.services.context import ServiceContext
from core.clock import now_ms, to_datetime
from core.errors import Invalid
from metering.quota.windows import day_start_ms

MAX_DAYS = 400


def today(context: ServiceContext) -> date:
    """The operator's date."""
    return to_datetime(now_ms()).astimezone(context.zone).date()


def date_range(context: ServiceContext, first: date | None, last: date | None) -> tuple[date, date]:
    """From `first` (default: the first of the month) to `last` (default: today).

    Raises Invalid; at the command line a range may be of any length.
    """
    last = last or today(context)
    first = first or min(last, today(context)).replace(day=1)
    if context.principal is not None and (first > last or (last - first).days > MAX_DAYS):
        raise Invalid(f"`from` is not after `to`, and at most {MAX_DAYS} days before it")
    return first, last


def start_of(context: ServiceContext, bound: Moment | Day | None) -> datetime | None:
    """The moment itself, or the start of the operator's day."""
    if bound is None or isinstance(bound, datetime):
        return bound
    return to_datetime(day_start_ms(bound, context.zone))


def end_of(context: ServiceContext, bound: Moment | Day | None) -> datetime | None:
    """The moment itself, or the end of the operator's day."""
    if bound is None or isinstance(bound, datetime):
        return bound
    return start_of(context, bound + timedelta(days=1))
