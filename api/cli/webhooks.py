"""`naka webhook`: what Razorpay told us, what became of it, and once more."""

from typing import Annotated

import typer

from api.cli.session import AsJson, Desk, at_desk, show, show_all
from api.routes.admin.webhooks import EventDetail, EventItem, EventState
from billing.event_log import find_event, list_events, replay_event

app = typer.Typer(no_args_is_help=True, help="Events of Razorpay's.")

Name = Annotated[str, typer.Argument(metavar="EVENT", help="An event's id.")]
_MOST = 1000


@app.command("list")
def list_all(
    state: Annotated[EventState | None, typer.Option(help="Only these.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, max=_MOST, help="So many, the newest.")] = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """List events, newest first."""

    async def work(desk: Desk) -> list[EventItem]:
        return [EventItem.of(event) for event in await list_events(desk.session, state=state, limit=most)]

    columns = ["id", "kind", "state", "tries", "received_at", "tenant_id", "reason"]
    show_all(at_desk(work), columns, as_json=as_json)


@app.command("show")
def show_one(event: Name, *, as_json: AsJson = False) -> None:
    """Show an event with what Razorpay sent."""

    async def work(desk: Desk) -> EventDetail:
        return EventDetail.of(await find_event(desk.session, event))

    show(at_desk(work), as_json=as_json)


@app.command("replay")
def replay(event: Name, *, as_json: AsJson = False) -> None:
    """Have an event worked off once more by the worker, whatever became of it."""

    async def work(desk: Desk) -> EventItem:
        return EventItem.of(await replay_event(desk.session, desk.actor, event))

    show(at_desk(work), as_json=as_json)
