"""`naka ledger`: the balances of the double-entry ledger, and a month of it for the accountant."""

from typing import Annotated

import typer

from api.cli.command import Call, Group, run_service
from api.cli.options import OfTenant, Reason, Tenant, tenant_name, tenant_or_all
from api.schemas.billing.decisions import Decision
from api.schemas.billing.ledger import LedgerForm
from api.services.billing import ledger
from api.services.context import ServiceContext

app = Group()

MonthOption = Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="The month of booking.")]
FormOption = Annotated[LedgerForm, typer.Option("--format", help="CSV, or XML that Tally imports.")]


@app.answering("balances")
def balances(tenant: OfTenant = None) -> Call:
    """Show the balance of each account, and where bills and payments disagree with it."""
    return lambda context: ledger.ledger_balances(context, tenant_or_all(tenant))


@app.answering("adjust", billing=True)
def adjust(tenant: Tenant, reason: Reason) -> Call:
    """Book what a tenant's bills and payments say and the ledger doesn't, after old processes ran beside an upgrade."""
    why = Decision(reason=reason).reason
    return lambda context: ledger.adjust_ledger(context, tenant_name(tenant), why)


@app.command("export")
def export(month: MonthOption, form: FormOption = "csv", tenant: OfTenant = None) -> None:
    """Print a month of the ledger, to be saved as a file."""

    async def write(context: ServiceContext) -> None:
        async for text in await ledger.export_ledger(context, month, form, tenant_or_all(tenant)):
            typer.echo(text, nl=False)

    run_service(write)
