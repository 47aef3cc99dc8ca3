"""`naka reconcile`: compares usage with the request rows, and repairs it when told to; proves the ledger of money.

Exit code: 0 no drift, 2 drifts (after a repair: those that are left; or poisoned settlements in this host's spool),
3 something could not be checked. A difference from Anthropic's usage report never changes the exit code; a report that
was wanted and could not be had is a 3.
"""

from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from api.cli.billing.reconcile_razorpay import compare
from api.cli.command import AsJson, in_one_line, run_service, wide_console
from api.cli.options import tenant_or_all
from api.schemas.usage.reconciliation import NOT_CHECKED, ReconcileRequest, ReconcileResult
from api.services.usage.reconciliation import reconcile_usage
from core.errors import Invalid, Unavailable
from core.resilience.outage import STORE_ERRORS
from metering.reconciliation.drifts import CHECKS, Drift, Month, Reconciliation
from metering.reconciliation.provider_usage import Exposure

app = typer.Typer(invoke_without_command=True)
app.command("razorpay")(compare)


@app.callback()
def reconcile(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(metavar="SLUG", help="Only this tenant, by its slug or id.")] = None,
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="Only from this month on.")] = None,
    reason: Annotated[str, typer.Option(help="Why meters are repaired: it is recorded with each repair.")] = "",
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Repair the rollup, and have Redis rebuilt.")] = False,
    repair_meters: Annotated[bool, typer.Option("--repair-meters", help="Repair the meters; needs --reason.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare usage with the request rows, and the ledger with the bills.

    Exit code: 0 no drift, 2 drifts, 3 something could not be checked.
    """
    if context.invoked_subcommand is not None:
        return
    if repair_meters and not reason.strip():
        raise Invalid("--repair-meters needs --reason: bills are made of meters")
    wanted = ReconcileRequest(
        tenant_or_all(tenant),
        None if since is None else _month(since),
        repair,
        repair_meters,
        reason,
    )
    try:
        result = _run(wanted)
    except (Unavailable, *STORE_ERRORS) as error:
        typer.echo(f"naka: could not check: {in_one_line(error)}", err=True)
        raise typer.Exit(NOT_CHECKED) from error
    if as_json:
        typer.echo(msgspec.json.encode(result.as_json()).decode())
    else:
        _print(result)
    raise typer.Exit(result.exit_code)


def _run(wanted: ReconcileRequest) -> ReconcileResult:
    """Runs under a progress bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Comparing tenants")
        return run_service(
            lambda context: reconcile_usage(
                context, wanted, lambda done, of: bar.update(task, completed=done, total=of)
            )
        )


def _month(text: str) -> Month:
    month = Month(text)
    try:
        valid = f"{month.first:%Y-%m}" == text
    except ValueError:
        valid = False
    if not valid:
        raise Invalid("--since is a month, as 2026-11")
    return month


def _print(result: ReconcileResult) -> None:
    console = wide_console()
    for title, run in (("Found", result.found), ("Left after repair", result.left)):
        if run is not None:
            _print_run(console, title, run)
    for check, repaired in result.repaired.items():
        console.print(f"repaired: {check}, {repaired}")
    console.print(f"ledger: {len(result.ledger) or 'no'} differences from bills, payments, refunds and disputes")
    for one in result.ledger:
        console.print(f"ledger: {one.tenant_id}, {one.account}: {one.booked} booked, {one.derived} by the rows")
    console.print(f"spool: {result.spooled} settlements waiting, {result.poisoned} poisoned")
    if result.exposure is not None:
        _print_exposure(console, result.exposure)
    if result.no_exposure is not None:
        console.print(escape(result.no_exposure))


def _print_run(console: Console, title: str, run: Reconciliation) -> None:
    console.print(f"[bold]{title}[/bold]: {run.drifts} drifts, {run.tenants} tenants, from {run.since.name} on")
    table = Table("check", "drifts", "", box=None, pad_edge=False, header_style="bold")
    for check in run.checks.values():
        table.add_row(
            check.name, "-" if check.not_done else str(check.found), escape(check.not_done or CHECKS[check.name])
        )
    console.print(table)
    listed = [drift for check in run.checks.values() for drift in check.drifts]
    if listed:
        table = Table("check", "tenant", "where", "difference", box=None, pad_edge=False, header_style="bold")
        for drift in listed:
            table.add_row(drift.check, str(drift.tenant_id), escape(_pairs(drift.subject)), _difference(drift))
        console.print(table)
    for row in run.unpriced:
        console.print(escape(f"not on the price list: {row.model}, {row.requests} requests of tenant {row.tenant_id}"))


def _print_exposure(console: Console, exposure: list[Exposure]) -> None:
    console.print("[bold]Anthropic's usage report[/bold]: theirs less ours, by UTC day; not a drift")
    table = Table("day", "model", "requests", "estimated", "lost", "difference", box=None, pad_edge=False)
    for row in exposure:
        numbers = (str(row.requests), str(row.estimated), str(row.lost))
        table.add_row(row.day.isoformat(), escape(row.model), *numbers, _pairs(row.difference) or "none")
    console.print(table)


def _difference(drift: Drift) -> str:
    return _pairs({name: f"{amount:+d}" for name, amount in drift.difference.items()})


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
