"""Path and query parameters shared by routes and pages."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Path, Query

from api.schemas.fields import EXAMPLE_ID, Slug
from api.schemas.moments import Day, Moment
from api.schemas.pages import MAX_SIZE

_MOMENT_EXAMPLES = ["2026-11-01T00:00:00Z", "2026-11-01"]

TenantId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
UserId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
KeyId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
IssuerId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
TenantWanted = Annotated[UUID | None, Query(alias="tenant_id", description="Only this one", examples=[EXAMPLE_ID])]
Cursor = Annotated[UUID | None, Query(description="`next` of the page before", examples=[EXAMPLE_ID])]
TagCursor = Annotated[
    str | None,
    Query(alias="cursor", max_length=300, description="`next` of the page before", examples=["feature=search"]),
]
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
FromDay = Annotated[Day | None, Query(alias="from", description="First day, of the operator's time zone")]
ToDay = Annotated[Day | None, Query(alias="to", description="Last day, included")]
UserWanted = Annotated[UUID | None, Query(alias="user_id", description="Only this one", examples=[EXAMPLE_ID])]
KeyWanted = Annotated[UUID | None, Query(alias="key_id", description="Only this one", examples=[EXAMPLE_ID])]
ModelWanted = Annotated[str | None, Query(description="Only this one", max_length=200, examples=["claude-sonnet-4-6"])]
TagWanted = Annotated[
    str | None,
    Query(description="Only requests with this tag", max_length=300, pattern="^[^=]+=.+$", examples=["feature=search"]),
]
PlanCode = Annotated[Slug, Path(examples=["team"])]
PlanVersion = Annotated[int, Path(ge=1, le=1_000_000, examples=[1])]
RequestId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
Form = Annotated[Literal["json", "csv"], Query(alias="format")]
