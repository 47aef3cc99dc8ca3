"""The types that bodies and parameters are made of: bounded, strict, and safe to store.

Postgres has no NUL in a text, and a name with a control character in it is an attack on whoever reads it. Integers end
where Redis, which counts in doubles, stops being exact.
"""

from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.moments import Day, Moment
from metering.quota.limits import MAX_LIMIT

MAX_CONCURRENCY = 1_000_000
MAX_RATE = 10_000_000  # nano-USD per token: 10,000 dollars per million, far over any list
MAX_PROMPT_TOKENS = 1_000_000_000
EXAMPLE_ID = UUID("01920000-0000-7000-8000-000000000001")

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_TEXT = rf"^[^\s{_CONTROL}](?:[^{_CONTROL}]*[^\s{_CONTROL}])?$"


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_TEXT)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
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
    """What comes in: a field that we do not know is refused, not ignored, and so is a NUL in any text."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        if _has_nul(value):
            raise PydanticCustomError("nul_character", "a text has a NUL in it")
        return value


def _has_nul(value: object) -> bool:
    """At any depth: validators that come later see only the fields that they are for."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(map(_has_nul, value))


def example(**fields: JsonValue) -> ConfigDict:
    """The configuration of a body whose documentation shows `fields`."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})
