"""`naka bill`: bills, and the operator's word on those that are held."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.accounts.tenants import Named, named_tenant
from api.cli.billing.billing_command import run_billing_command
from api.cli.command import AsJson, show, show_all
from api.routes.admin.bills import BillVoid, Closed
from api.routes.bill_items import BillDetail, BillItem, BillState, detail_of
from billing.context import BillingContext
from billing.invoicing.bill_list import list_bills, live_charges
from billing.invoicing.held_bills import release, void
from billing.invoicing.period_close import close_tenant
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

    async def work(context: BillingContext, _: Actor) -> list[BillItem]:
        async with context.database.session() as session:
            whose = None if tenant is None else (await named_tenant(session, tenant)).id
            rows = await list_bills(session, tenant_id=whose, state=state, limit=most)
            charges = await live_charges(session, rows)
        return [BillItem.of(bill, charges.get(bill.id)) for bill in rows]

    columns = ["id", "tenant_id", "kind", "state", "number", "period", "total", "due_paise", "reason"]
    show_all(run_billing_command(work), columns, as_json=as_json)


@app.command("show")
def show_one(bill: Id, *, as_json: AsJson = False) -> None:
    """Show a bill with its lines."""

    async def work(context: BillingContext, actor: Actor) -> BillDetail:
        return await detail_of(context, bill, tenant_id=None, reader=actor)

    show(run_billing_command(work), as_json=as_json)


@app.command("release")
def release_one(bill: Id, *, as_json: AsJson = False) -> None:
    """Make a held bill final: it gets its number, and is collected."""

    async def work(context: BillingContext, actor: Actor) -> BillDetail:
        await release(context, actor, bill)
        return await detail_of(context, bill, tenant_id=None)

    show(run_billing_command(work), as_json=as_json)


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

    async def work(context: BillingContext, actor: Actor) -> BillDetail:
        await void(context, actor, bill, wanted.reason, again=wanted.again)
        return await detail_of(context, bill, tenant_id=None)

    show(run_billing_command(work), as_json=as_json)


@app.command()
def close(tenant: Named, *, as_json: AsJson = False) -> None:
    """Close a tenant's periods that are due, now; what the worker does by itself."""

    async def work(context: BillingContext, _: Actor) -> Closed:
        async with context.database.session() as session:
            whose = (await named_tenant(session, tenant)).id
        return Closed(closed=await close_tenant(context, whose))

    show(run_billing_command(work), as_json=as_json)
