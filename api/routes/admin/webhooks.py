"""What Razorpay told us, and what became of it. For platform admins: an event may be of any tenant, or of none."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, StringConstraints

from api.auth.access import PlatformAdmin, RuntimeDep, actor_of
from api.routes.parameters import PageSize
from api.schemas.pages import DEFAULT_SIZE, Page, page
from billing.models import WebhookEvent
from billing.webhooks.queries import find_event, list_events, replay_event

router = APIRouter()

EventState = Literal["received", "applied", "ignored", "parked"]
_Name = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,64}$")]
_EXAMPLE = "TmA1c9RkVe7HbN"
EventName = Annotated[_Name, Path(examples=[_EXAMPLE])]
StateWanted = Annotated[EventState | None, Query(description="Only these", examples=["parked"])]
Cursor = Annotated[_Name | None, Query(description="`next` of the page before", examples=[_EXAMPLE])]


class EventItem(BaseModel):
    """An event. `due_at`: when it is tried (again), while it is `received`; `reason`: why it is where it is."""

    id: str
    kind: str
    state: EventState
    tries: int
    received_at: datetime
    due_at: datetime | None
    ended_at: datetime | None
    account_id: str | None
    tenant_id: str | None
    reason: str | None

    @classmethod
    def of(cls, event: WebhookEvent) -> Self:
        """As it is answered."""
        return cls.model_validate(_fields(event))


class EventDetail(EventItem):
    """One, with what Razorpay sent, as text: it names the payer, as e-mail and telephone."""

    body: str

    @classmethod
    def of(cls, event: WebhookEvent) -> Self:
        """As it is answered; bytes that are no UTF-8 are shown by a sign in their place."""
        return cls.model_validate(_fields(event) | {"body": event.body.decode("utf-8", "replace")})


@router.get("/webhooks")
async def all_events(
    _: PlatformAdmin,
    runtime: RuntimeDep,
    state: StateWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[EventItem]:
    """Razorpay's events, newest first."""
    async with runtime.database.session() as session:
        rows = await list_events(session, state=state, before=cursor, limit=size + 1)
    return page(rows, size, EventItem.of, lambda event: event.event_id)


@router.get("/webhooks/{event_name}")
async def one_event(event_name: EventName, _: PlatformAdmin, runtime: RuntimeDep) -> EventDetail:
    """An event of Razorpay's, with its body."""
    async with runtime.database.session() as session:
        return EventDetail.of(await find_event(session, event_name))


@router.post("/webhooks/{event_name}/replay")
async def replay(event_name: EventName, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> EventItem:
    """Have an event worked off once more, whatever became of it: what it points at is fetched again."""
    async with runtime.database.session() as session:
        return EventItem.of(await replay_event(session, actor_of(request, principal), event_name))


def _fields(event: WebhookEvent) -> dict[str, object]:
    return {
        "id": event.event_id,
        "kind": event.kind,
        "state": event.state,
        "tries": event.tries,
        "received_at": _at(event.received_ms),
        "due_at": _at(event.due_ms) if event.state == "received" else None,
        "ended_at": _at(event.ended_ms),
        "account_id": event.account_id,
        "tenant_id": None if event.tenant_id is None else str(event.tenant_id),
        "reason": event.reason,
    }


def _at(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
