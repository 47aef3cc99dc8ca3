"""Days and moments as parameters and bodies have them: ISO 8601, in years that a calendar can calculate with."""

import re
from datetime import date, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

FIRST_YEAR, LAST_YEAR = 2020, 2100

D = TypeVar("D", bound=date)

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ].*")


def _like(form: re.Pattern[str], value: object) -> object:
    """A date is written in ISO 8601: numbers since 1970, which pydantic would take too, say no unit."""
    if isinstance(value, (date, datetime)) or (isinstance(value, str) and form.fullmatch(value)):
        return value
    raise ValueError("not in the form of ISO 8601")


def _in_years(value: D) -> D:
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(f"not in the years {FIRST_YEAR} to {LAST_YEAR}")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(lambda value: _like(_MOMENT, value)), AfterValidator(_in_years)]
Day = Annotated[date, BeforeValidator(lambda value: _like(_DAY, value)), AfterValidator(_in_years)]
