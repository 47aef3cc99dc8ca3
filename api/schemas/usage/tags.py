"""Shapes of tag keys."""

from datetime import date
from typing import Annotated

from pydantic import Field

from api.schemas.fields import Body, example
from api.schemas.rows import Row
from metering.tags.declared import MAX_VALUES, USUAL_VALUES


class TagKeyBody(Body):
    """A declaration. Past `max_values` distinct values on a day, further ones are added up as `other`."""

    model_config = example(max_values=1000)

    max_values: Annotated[int, Field(ge=1, le=MAX_VALUES)] = USUAL_VALUES


class TagKeyItem(Row):
    """A declared tag key. `overflowed`: the last day on which it had more than `max_values` values, if any."""

    key: str
    max_values: int
    values_today: int
    overflowed: date | None


class TagKeysFound(Row):
    """All declared keys; `next` is always null."""

    items: list[TagKeyItem]
    next: None = None
