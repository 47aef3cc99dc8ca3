"""`naka reconcile razorpay`: Razorpay's books beside ours, now instead of at the next full hour."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.cli.billing.billing_command import run_billing_command
from api.cli.command import AsJson
from billing.razorpay.errors import RazorpayError
from billing.reconciliation import WINDOW_DAYS, Report, reconcile_razorpay
from core.errors import Unavailable

UNEXPLAINED, NOT_COMPARED = 2, 3


def compare(
    days: Annotated[int, typer.Option(min=1, max=365, help="How far back.")] = WINDOW_DAYS, *, as_json: AsJson = False
) -> None:
    """Compare Razorpay's books with ours, and fetch what was missed. Exit code: 0 explained, 2 not, 3 not compared."""
    try:
        found = run_billing_command(lambda context, _: reconcile_razorpay(context, days=days))
    except (RazorpayError, Unavailable) as error:
        typer.echo(f"naka: could not compare: {error}", err=True)
        raise typer.Exit(NOT_COMPARED) from error
    if as_json:
        typer.echo(msgspec.json.encode(found.as_json()).decode())
    else:
        _print(found)
    raise typer.Exit(0 if found.is_clean else UNEXPLAINED)


def _print(found: Report) -> None:
    console = Console()
    console = console if console.is_terminal else Console(width=10_000)
    compared = ", ".join(f"{number} {what}" for what, number in found.compared.items())
    console.print(f"compared: {compared}; {found.foreign} of other products of this account")
    console.print(f"collected {found.collected_paise} paise, given back {found.refunded_paise} paise")
    for title, rows in (("healed", found.healed), ("unexplained", found.unexplained)):
        table = Table(title, "", "", box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(row["kind"], str(row["id"]), escape(str(row["what"])))
        if rows:
            console.print(table)
