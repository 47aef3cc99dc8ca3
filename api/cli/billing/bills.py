"""`naka bill`: bills, and the operator's decision on held ones."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.command import Call, Group
from api.cli.options import IN_STATE, Limit, OfTenant, Reason, Tenant, tenant_name, tenant_or_all
from api.schemas.billing.bills import BillVoid
from api.schemas.billing.decisions import Decision
from api.services.billing import bills
from billing.models.states import BillState

app = Group()

Id = Annotated[UUID, typer.Argument(metavar="BILL", help="The bill's id.")]


@app.answering("list", "id", "tenant_id", "kind", "state", "number", "period", "total", "due_paise", "reason")
def list_all(tenant: OfTenant = None, state: Annotated[BillState | None, IN_STATE] = None, most: Limit = 50) -> Call:
    """List bills, credit notes and drafts, newest first."""
    return lambda context: bills.list_bills(context, tenant=tenant_or_all(tenant), state=state, size=most)


@app.answering("show")
def show_one(bill: Id) -> Call:
    """Show a bill with its lines."""
    return lambda context: bills.find_bill(context, bill)


@app.answering("release", billing=True)
def release_one(bill: Id) -> Call:
    """Make a held bill final: it gets its number and is collected."""
    return lambda context: bills.release_bill(context, bill)


@app.answering("void", billing=True)
def void_one(
    bill: Id,
    reason: Reason,
    *,
    again: Annotated[bool, typer.Option("--again", help="Price its period again instead of waiving it.")] = False,
) -> Call:
    """Void a held bill. Its usage is never billed, unless `--again`."""
    asked = BillVoid(reason=reason, again=again)
    return lambda context: bills.void_bill(context, bill, asked.reason, again=asked.again)


@app.answering("write-off", billing=True)
def write_off_one(bill: Id, reason: Reason) -> Call:
    """Give up what is due of an open bill: its link is cancelled, and the tenant no longer owes it."""
    why = Decision(reason=reason).reason
    return lambda context: bills.write_off_bill(context, bill, why)


@app.answering("close", billing=True)
def close(tenant: Tenant) -> Call:
    """Close a tenant's ended periods now, before the worker does."""
    return lambda context: bills.close_periods(context, tenant_name(tenant))
