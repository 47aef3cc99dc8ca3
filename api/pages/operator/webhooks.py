"""Razorpay's events: what came, what became of it, and having it worked off once more."""

import json
from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import Response
from sqlalchemy import select

from api.auth.access import RuntimeDep, actor_of
from api.pages.operator.frame import (
    SIZE,
    Act,
    Cell,
    Listing,
    Row,
    Said,
    filters,
    show,
    show_list,
    tenant_cells,
    with_query,
)
from api.pages.route import page_router
from api.pages.site import Here, see_other
from api.pages.visitor import Operator
from api.routes.admin.webhooks import EventName, EventState
from billing.models import WebhookEvent
from billing.webhooks.queries import find_event, list_events, replay_event

router = page_router("/operator/webhooks")
_STATES = {"": "All", "parked": "Parked", "received": "Waiting", "applied": "Applied", "ignored": "Ignored"}
_MOST_AT_ONCE = 500
Cursor = Annotated[str | None, Query(max_length=64)]


@router.get("")
async def events(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    state: EventState | None = None,
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Newest first."""
    here = Here(runtime.calendar.zone)
    async with runtime.database.session() as session:
        rows = await list_events(session, state=state, before=cursor, limit=SIZE + 1)
        tenants = await tenant_cells(session, (event.tenant_id for event in rows))
    older = with_query("/operator/webhooks", state=state, cursor=rows[SIZE - 1].event_id) if len(rows) > SIZE else None
    replay_all = Act("Replay all parked", "Have every parked event worked off once more?", "/operator/webhooks/replay")
    listing = Listing(
        ["Event", "State", "Tenant", "Tries", "Received"],
        [
            Row(
                [
                    Cell(event.kind, f"/operator/webhooks/{event.event_id}", note=event.event_id),
                    Cell(event.state, is_state=True, note=event.reason or ""),
                    tenants[event.tenant_id],
                    Cell(str(event.tries), is_number=True),
                    Cell(here.at(event.received_ms)),
                ]
            )
            for event in rows[:SIZE]
        ],
        "Razorpay has not told anything yet." if not state else "None in this state.",
        older,
        filters("/operator/webhooks", _STATES, state or ""),
        [replay_all] if any(event.state == "parked" for event in rows) else (),
    )
    lead = (
        "A parked event failed until it was clear that a person has to look. Replaying fetches again what it points at."
    )
    return show_list(request, visitor, "Webhooks", listing, said, lead)


@router.post("/replay")
async def replay_parked(request: Request, runtime: RuntimeDep, visitor: Operator) -> Response:
    """Has every parked event worked off once more; some hundreds at a time."""
    parked = select(WebhookEvent.event_id).where(WebhookEvent.state == "parked").order_by(WebhookEvent.received_ms)
    async with runtime.database.session() as session:
        for event_id in (await session.scalars(parked.limit(_MOST_AT_ONCE))).all():
            await replay_event(session, actor_of(request, visitor.principal), event_id)
    return see_other("/operator/webhooks?said=replayed-all")


@router.get("/{event_name}")
async def event(
    request: Request, event_name: EventName, runtime: RuntimeDep, visitor: Operator, said: Said = ""
) -> Response:
    """One of them, with what Razorpay sent."""
    async with runtime.database.session() as session:
        found = await find_event(session, event_name)
        tenant = (await tenant_cells(session, [found.tenant_id]))[found.tenant_id]
    act = Act("Replay", "Have this event worked off once more?", f"/operator/webhooks/{found.event_id}/replay")
    state = Cell(found.state, is_state=True)
    body = _pretty(found.body)
    return show(request, "webhook", visitor, said, event=found, state=state, tenant=tenant, body=body, act=act)


@router.post("/{event_name}/replay")
async def replay(event_name: EventName, request: Request, runtime: RuntimeDep, visitor: Operator) -> Response:
    """Has it worked off once more."""
    async with runtime.database.session() as session:
        await replay_event(session, actor_of(request, visitor.principal), event_name)
    return see_other(f"/operator/webhooks/{event_name}?said=replayed")


def _pretty(body: bytes) -> str:
    """JSON set out for reading; what is none, as it came."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body.decode("utf-8", "replace")
