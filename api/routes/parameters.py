"""Path and query parameters that several routes and pages have."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query

from api.schemas.fields import EXAMPLE_ID
from api.schemas.moments import Day, Moment
from api.schemas.pages import MAX_SIZE

_MOMENT_EXAMPLES = ["2026-11-01T00:00:00Z", "2026-11-01"]

TenantId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
UserId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
KeyId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
TenantWanted = Annotated[UUID | None, Query(alias="tenant_id", description="Only this one", examples=[EXAMPLE_ID])]
Cursor = Annotated[UUID | None, Query(description="`next` of the page before", examples=[EXAMPLE_ID])]
PageSize = Annotated[int, Query(alias="limit", ge=1, le=MAX_SIZE, description="Items on a page", examples=[50])]
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
