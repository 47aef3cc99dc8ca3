"""`naka reconcile razorpay`: compares Razorpay's records with ours now, instead of at the next full hour."""

from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from api.cli.command import AsJson, run_service, wide_console
from billing.razorpay.errors import RazorpayError
from billing.reconciliation import WINDOW_DAYS, RazorpayReport, reconcile_razorpay
from core.errors import Unavailable

UNEXPLAINED, NOT_COMPARED = 2, 3


def compare(
    days: Annotated[int, typer.Option(min=1, max=365, help="Days to compare.")] = WINDOW_DAYS,
    *,
    as_json: AsJson = False,
) -> None:
    """Compare Razorpay's records with ours, and fetch missed changes.

    Exit code: 0 all explained, 2 not all, 3 not compared, or not to the end; the next run continues.
    """
    found = RazorpayReport()
    try:
        run_service(lambda context: reconcile_razorpay(context.billing, days=days, found=found), billing=True)
    except (RazorpayError, Unavailable) as error:
        typer.echo(f"naka: could not compare: {error}. {_progress(found)}", err=True)
        raise typer.Exit(NOT_COMPARED) from error
    if as_json:
        typer.echo(msgspec.json.encode(found.as_json()).decode())
    else:
        _print(found)
    raise typer.Exit(0 if found.is_clean else UNEXPLAINED)


def _progress(found: RazorpayReport) -> str:
    """The progress of a run that stopped, and the next step."""
    if not found.days_compared:
        return "Nothing was compared."
    return f"{found.progress.capitalize()}, {found.compared.get('payments', 0)} payments. Run it again to continue."


def _print(found: RazorpayReport) -> None:
    console = wide_console()
    compared = ", ".join(f"{number} {what}" for what, number in found.compared.items())
    console.print(f"compared {found.days} days: {compared}; {found.foreign} of other products of this account")
    console.print(f"collected {found.collected_paise} paise, given back {found.refunded_paise} paise")
    for title, rows in (("healed", found.healed), ("unexplained", found.unexplained)):
        table = Table(title, "", "", box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(row["kind"], str(row["id"]), escape(str(row["what"])))
        if rows:
            console.print(table)
