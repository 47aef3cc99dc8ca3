"""`naka bill`: bills, and the operator's word on those that are held."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.billing_desk import at_billing
from api.cli.session import AsJson, show, show_all
from api.cli.tenants import Named, named_tenant
from api.routes.admin.bills import BillVoid, Closed
from api.routes.bill_items import BillDetail, BillItem, BillState, detail_of
from billing.bill_list import list_bills, live_charges
from billing.closes import close_tenant
from billing.desk import Desk
from billing.held_bills import release, void
from core.tenancy.audit import Actor

app = typer.Typer(no_args_is_help=True, help="Bills and credit notes.")

Id = Annotated[UUID, typer.Argument(metavar="BILL", help="A bill's id.")]
_MOST = 1000


@app.command("list")
def list_all(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's: its slug or id.")] = None,
    state: Annotated[BillState | None, typer.Option(help="Only these.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, max=_MOST, help="So many, the newest.")] = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """List bills, credit notes and drafts, newest first."""

    async def work(desk: Desk, _: Actor) -> list[BillItem]:
        async with desk.database.session() as session:
            whose = None if tenant is None else (await named_tenant(session, tenant)).id
            rows = await list_bills(session, tenant_id=whose, state=state, limit=most)
            charges = await live_charges(session, rows)
        return [BillItem.of(bill, charges.get(bill.id)) for bill in rows]

    columns = ["id", "tenant_id", "kind", "state", "number", "period", "total", "due_paise", "reason"]
    show_all(at_billing(work), columns, as_json=as_json)


@app.command("show")
def show_one(bill: Id, *, as_json: AsJson = False) -> None:
    """Show a bill with its lines."""

    async def work(desk: Desk, actor: Actor) -> BillDetail:
        return await detail_of(desk, bill, tenant_id=None, reader=actor)

    show(at_billing(work), as_json=as_json)


@app.command("release")
def release_one(bill: Id, *, as_json: AsJson = False) -> None:
    """Make a held bill final: it gets its number, and is collected."""

    async def work(desk: Desk, actor: Actor) -> BillDetail:
        await release(desk, actor, bill)
        return await detail_of(desk, bill, tenant_id=None)

    show(at_billing(work), as_json=as_json)


@app.command("void")
def void_one(
    bill: Id,
    reason: Annotated[str, typer.Option(help="Why.")],
    *,
    again: Annotated[bool, typer.Option("--again", help="Do not forgive it: price its period afresh.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a held bill go. What it asked for is forgiven for good, unless `--again`."""
    wanted = BillVoid(reason=reason, again=again)

    async def work(desk: Desk, actor: Actor) -> BillDetail:
        await void(desk, actor, bill, wanted.reason, again=wanted.again)
        return await detail_of(desk, bill, tenant_id=None)

    show(at_billing(work), as_json=as_json)


@app.command()
def close(tenant: Named, *, as_json: AsJson = False) -> None:
    """Close a tenant's periods that are due, now; what the worker does by itself."""

    async def work(desk: Desk, _: Actor) -> Closed:
        async with desk.database.session() as session:
            whose = (await named_tenant(session, tenant)).id
        return Closed(closed=await close_tenant(desk, whose))

    show(at_billing(work), as_json=as_json)
