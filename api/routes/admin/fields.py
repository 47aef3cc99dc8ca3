"""The types that bodies and parameters are made of: bounded, strict, and safe to store.

Postgres has no NUL in a text, and a name with a control character in it is an attack on whoever reads it. Integers end
where Redis, which counts in doubles, stops being exact.
"""

import re
from datetime import date, datetime
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)

from metering.limits import MAX_LIMIT

MAX_CONCURRENCY = 1_000_000
MAX_RATE = 10_000_000  # nano-USD per token: 10,000 dollars per million, far over any list
MAX_PROMPT_TOKENS = 1_000_000_000
FIRST_YEAR, LAST_YEAR = 2020, 2100
EXAMPLE_ID = UUID("01920000-0000-7000-8000-000000000001")

D = TypeVar("D", bound=date)

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_TEXT = rf"^[^\s{_CONTROL}](?:[^{_CONTROL}]*[^\s{_CONTROL}])?$"
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


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_TEXT)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
Moment = Annotated[AwareDatetime, BeforeValidator(lambda value: _like(_MOMENT, value)), AfterValidator(_in_years)]
Day = Annotated[date, BeforeValidator(lambda value: _like(_DAY, value)), AfterValidator(_in_years)]
_MOMENT_EXAMPLES = ["2026-11-01T00:00:00Z", "2026-11-01"]
Since = Annotated[
    Moment | Day | None,
    Query(
        alias="from",
        description="At this moment or later; or a day of the operator's time zone",
        examples=_MOMENT_EXAMPLES,
        union_mode="left_to_right",
    ),
]
Until = Annotated[
    Moment | Day | None,
    Query(
        alias="to",
        description="Before this moment; or a day of the operator's time zone, included",
        examples=_MOMENT_EXAMPLES,
        union_mode="left_to_right",
    ),
]
LimitValue = Annotated[int, Field(strict=True, ge=0, le=MAX_LIMIT)]
ConcurrencyLimit = Annotated[int, Field(strict=True, ge=0, le=MAX_CONCURRENCY)]
Rate = Annotated[int, Field(strict=True, ge=0, le=MAX_RATE)]
PromptSize = Annotated[int, Field(strict=True, ge=0, le=MAX_PROMPT_TOKENS)]
PlanNumber = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class Body(BaseModel):
    """What comes in: a field that we do not know is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


def example(**fields: JsonValue) -> ConfigDict:
    """The configuration of a body whose documentation shows `fields`."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})
