"""Days and moments in parameters and bodies: ISO 8601, within years that calendars can calculate."""

import re
from datetime import date, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from core.clock import to_iso

FIRST_YEAR, LAST_YEAR = 2020, 2100

D = TypeVar("D", bound=date)

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ].*")


def _like(form: re.Pattern[str], value: object) -> object:
    """Requires ISO 8601. Pydantic would also accept numbers since 1970, whose unit is ambiguous."""
    if isinstance(value, (date, datetime)) or (isinstance(value, str) and form.fullmatch(value)):
        return value
    raise ValueError("not in ISO 8601")


def _in_years(value: D) -> D:
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(f"not in the years {FIRST_YEAR} to {LAST_YEAR}")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(lambda value: _like(_MOMENT, value)), AfterValidator(_in_years)]
Day = Annotated[date, BeforeValidator(lambda value: _like(_DAY, value)), AfterValidator(_in_years)]


def iso_or_none(at_ms: int | None) -> str | None:
    """Milliseconds since 1970 as ISO 8601 in UTC; None for None."""
    return None if at_ms is None else to_iso(at_ms)


Iso = Annotated[str, BeforeValidator(to_iso)]
IsoOrNone = Annotated[str | None, BeforeValidator(iso_or_none)]
"""Milliseconds in a row, ISO 8601 in an answer."""
