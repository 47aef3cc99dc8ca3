"""Types of the fields of bodies and parameters: bounded, strict, and safe to store.

Postgres cannot store a NUL in a text, and control characters in names can attack a reader's terminal. Integers are
bounded by what Redis, which counts in doubles, keeps exact.
"""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from core.errors import Invalid
from core.identity.end_users import normal_name
from metering.quota.limits import MAX_LIMIT

MAX_CONCURRENCY = 1_000_000
MAX_RATE = 10_000_000  # nano-USD per token: 10,000 dollars per million, far above any list price
MAX_SEARCH_RATE = 10**10  # nano-USD per web search: 10 dollars
MAX_FACTOR = 100_000  # per mille: a hundred times the list price
MAX_PROMPT_TOKENS = 1_000_000_000
EXAMPLE_ID = UUID("01920000-0000-7000-8000-000000000001")

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_TEXT = rf"^[^\s{_CONTROL}](?:[^{_CONTROL}]*[^\s{_CONTROL}])?$"


def _normal_name(text: str) -> str:
    try:
        return normal_name(text)
    except Invalid as error:
        raise PydanticCustomError("user_name", "must have 1 to 200 characters, and no control characters") from error


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_TEXT)]
UserName = Annotated[str, AfterValidator(_normal_name)]
"""A tenant's own name for a user, in NFC and trimmed."""
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
ModelPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}\*?$")]
"""A model's name, or a prefix of names that ends in `*`."""
LimitValue = Annotated[int, Field(strict=True, ge=0, le=MAX_LIMIT)]
ConcurrencyLimit = Annotated[int, Field(strict=True, ge=0, le=MAX_CONCURRENCY)]
Rate = Annotated[int, Field(strict=True, ge=0, le=MAX_RATE)]
SearchRate = Annotated[int, Field(strict=True, ge=0, le=MAX_SEARCH_RATE)]
Modifier = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,20}:[a-z0-9_-]{1,40}$")]
Factor = Annotated[int, Field(strict=True, ge=1, le=MAX_FACTOR)]
PromptSize = Annotated[int, Field(strict=True, ge=0, le=MAX_PROMPT_TOKENS)]
PlanNumber = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class Body(BaseModel):
    """An input. Unknown fields and a NUL in any text are refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        if _has_nul(value):
            raise PydanticCustomError("nul_character", "a text has a NUL in it")
        return value


def _has_nul(value: object) -> bool:
    """Whether there is a NUL at any depth: later validators see single fields only."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(map(_has_nul, value))


def example(**fields: JsonValue) -> ConfigDict:
    """The configuration of a body with an example in its documentation."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})
