"""Razorpay's events: the list, one of them, and processing them again."""

import json
from typing import Annotated
from uuid import UUID

from fastapi import Query, Request
from fastapi.responses import Response

from api.pages.operator.frame import SIZE, Act, Cell, Said, show, tenant_cell
from api.pages.operator.lists import EVENTS, show_page
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import Operator
from api.schemas.billing.webhooks import EventId, EventState
from api.services.accounts.tenants import tenant_names
from api.services.billing import webhooks

router = page_router("/operator/webhooks")
Cursor = Annotated[str | None, Query(max_length=64)]


@router.get("")
async def events(
    request: Request, visitor: Operator, state: EventState | None = None, cursor: Cursor = None, said: Said = ""
) -> Response:
    """Events, newest first."""
    found = await webhooks.list_events(visitor.context, state=state, before=cursor, size=SIZE)
    return await show_page(request, visitor, EVENTS, found, said, state=state)


@router.post("/replay")
async def replay_parked(visitor: Operator) -> Response:
    """Queues the parked events, some hundreds at a time."""
    await webhooks.replay_parked(visitor.context)
    return see_other("/operator/webhooks?said=replayed-all")


@router.get("/{event_name}")
async def event(request: Request, event_name: EventId, visitor: Operator, said: Said = "") -> Response:
    """An event with its body."""
    found = await webhooks.find_event(visitor.context, event_name)
    whose = None if found.tenant_id is None else UUID(found.tenant_id)
    tenant = tenant_cell(whose, await tenant_names(visitor.context, [whose]))
    act = Act("Replay", "Process this event again?", f"/operator/webhooks/{found.id}/replay")
    state = Cell(found.state, is_state=True)
    body = _pretty(found.body)
    return show(request, "webhook", visitor, said, event=found, state=state, tenant=tenant, body=body, act=act)


@router.post("/{event_name}/replay")
async def replay(event_name: EventId, visitor: Operator) -> Response:
    """Queues the event."""
    await webhooks.replay_event(visitor.context, event_name)
    return see_other(f"/operator/webhooks/{event_name}?said=replayed")


def _pretty(body: str) -> str:
    """Indented JSON; a body that is none, unchanged."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body
