"""Shapes of Razorpay's webhook events."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints

from api.schemas.rows import Row
from billing.models import WebhookEvent
from core.clock import to_datetime

EventState = Literal["received", "applied", "ignored", "parked"]
EventId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,64}$")]
At = Annotated[datetime, BeforeValidator(to_datetime)]
AtOrNone = Annotated[datetime | None, BeforeValidator(lambda at_ms: None if at_ms is None else to_datetime(at_ms))]


class EventItem(Row):
    """An event. `due_at`: its next attempt, while it is `received`; `reason`: why it is in its state."""

    id: str = Field(validation_alias="event_id")
    kind: str
    state: EventState
    tries: int
    received_at: At = Field(validation_alias="received_ms")
    due_at: AtOrNone
    ended_at: AtOrNone = Field(validation_alias="ended_ms")
    account_id: str | None
    tenant_id: Annotated[str | None, BeforeValidator(lambda tenant_id: tenant_id and str(tenant_id))]
    reason: str | None

    @classmethod
    def of(cls, event: WebhookEvent) -> Self:
        """The shape of a row."""
        return cls.completed(event, due_at=event.due_ms if event.state == "received" else None)


class EventDetail(EventItem):
    """An event with its body as text. The body may name the payer (e-mail, telephone)."""

    # bytes that are not UTF-8 become replacement characters
    body: Annotated[str, BeforeValidator(lambda body: body.decode("utf-8", "replace"))]
