"""`naka webhook`: what Razorpay told us, what became of it, and once more."""

from typing import Annotated

import typer

from api.cli.command import AsJson, CommandContext, run_command, show, show_all
from api.routes.admin.webhooks import EventDetail, EventItem, EventState
from billing.webhooks.queries import find_event, list_events, replay_event

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

    async def work(context: CommandContext) -> list[EventItem]:
        return [EventItem.of(event) for event in await list_events(context.session, state=state, limit=most)]

    columns = ["id", "kind", "state", "tries", "received_at", "tenant_id", "reason"]
    show_all(run_command(work), columns, as_json=as_json)


@app.command("show")
def show_one(event: Name, *, as_json: AsJson = False) -> None:
    """Show an event with what Razorpay sent."""

    async def work(context: CommandContext) -> EventDetail:
        return EventDetail.of(await find_event(context.session, event))

    show(run_command(work), as_json=as_json)


@app.command("replay")
def replay(event: Name, *, as_json: AsJson = False) -> None:
    """Have an event worked off once more by the worker, whatever became of it."""

    async def work(context: CommandContext) -> EventItem:
        return EventItem.of(await replay_event(context.session, context.actor, event))

    show(run_command(work), as_json=as_json)
