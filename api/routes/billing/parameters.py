"""Parameters of billing's routes, and the context of a caller confined to its own tenant."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path, Query

from api.auth.access import TenantContext
from api.schemas.billing.webhooks import EventId, EventState
from api.schemas.fields import EXAMPLE_ID, Slug, Text
from api.services.context import ServiceContext
from billing.models.states import BillState, ChargeState, RefundState


def own_context(context: TenantContext) -> ServiceContext:
    """The caller as an admin of its own tenant."""
    return context.own


OwnContext = Annotated[ServiceContext, Depends(own_context)]

ItemId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
BillStateWanted = Annotated[BillState | None, Query(description="Only in this state", examples=["open"])]
ChargeStateWanted = Annotated[ChargeState | None, Query(description="Only in this state", examples=["failed"])]
RefundStateWanted = Annotated[
    RefundState | None, Query(description="Only in this state", examples=["awaiting_operator"])
]
EventStateWanted = Annotated[EventState | None, Query(description="Only in this state", examples=["parked"])]
BillWanted = Annotated[UUID | None, Query(description="Only of this bill", examples=[EXAMPLE_ID])]
Final = Annotated[bool, Query(description="Only those that have a number", examples=[False])]
Closed = Annotated[bool, Query(description="Closed findings instead of open ones", examples=[False])]
CodeWanted = Annotated[Slug | None, Query(description="Only of this plan", examples=["team"])]
FindingCursor = Annotated[
    Text | None, Query(alias="cursor", description="`next` of the page before", examples=["dispute:d"])
]
PlanCursor = Annotated[
    str | None,
    Query(
        description="`next` of the page before",
        pattern=r"^[a-z0-9-]{1,63}@[1-9][0-9]{0,8}$",
        examples=["team@2"],
    ),
]
_EVENT_EXAMPLE = "TmA1c9RkVe7HbN"
EventName = Annotated[EventId, Path(examples=[_EVENT_EXAMPLE])]
EventCursor = Annotated[EventId | None, Query(description="`next` of the page before", examples=[_EVENT_EXAMPLE])]

HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
PDF: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}
}
