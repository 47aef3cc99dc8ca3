"""All commands of `naka`, and what becomes of an error: one line on standard error, and exit code 1."""

import sys

import typer
from pydantic import ValidationError

from api.cli.accounts import keys, tenants, users
from api.cli.billing import bills, charges, plans, profiles, subscriptions, webhooks
from api.cli.command import in_one_line
from api.cli.metering import corrections, prices, reconcile, report, spool
from api.cli.processes import server
from api.cli.processes.doctor import doctor
from api.cli.processes.up import up
from api.cli.processes.worker import work
from api.http.server import AddressTaken
from core.errors import NakaError
from core.postgres.connection import UnexpectedPooler
from core.resilience.outage import STORE_ERRORS
from core.settings import SettingsError

app = typer.Typer(
    name="naka",
    help="Meters, limits and bills an AI chat on Claude.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_RUN, _WHO, _SELL, _BOOKS = "Run", "Tenants, users, keys", "Sell and collect", "Reports and books"
app.command("up", rich_help_panel=_RUN)(up)
app.command("serve", rich_help_panel=_RUN)(server.serve)
app.command("worker", rich_help_panel=_RUN)(work)
app.command("migrate", rich_help_panel=_RUN)(server.migrate)
app.command("doctor", rich_help_panel=_RUN)(doctor)
app.add_typer(tenants.app, name="tenant", rich_help_panel=_WHO)
app.add_typer(users.app, name="user", rich_help_panel=_WHO)
app.add_typer(keys.app, name="key", rich_help_panel=_WHO)
app.add_typer(plans.app, name="plan", rich_help_panel=_SELL)
app.add_typer(prices.app, name="price", rich_help_panel=_SELL)
app.add_typer(profiles.operator, name="operator", rich_help_panel=_SELL)
app.add_typer(profiles.profile, name="profile", rich_help_panel=_SELL)
app.add_typer(subscriptions.app, name="subscription", rich_help_panel=_SELL)
app.add_typer(bills.app, name="bill", rich_help_panel=_SELL)
app.add_typer(charges.charge_app, name="charge", rich_help_panel=_SELL)
app.add_typer(charges.refund_app, name="refund", rich_help_panel=_SELL)
app.add_typer(charges.finding_app, name="finding", rich_help_panel=_SELL)
app.add_typer(webhooks.app, name="webhook", rich_help_panel=_SELL)
app.add_typer(report.app, name="report", rich_help_panel=_BOOKS)
app.add_typer(reconcile.app, name="reconcile", rich_help_panel=_BOOKS)
app.add_typer(spool.app, name="spool", rich_help_panel=_BOOKS)
app.command("correct", rich_help_panel=_BOOKS)(corrections.correct)
app.command("credit", rich_help_panel=_BOOKS)(corrections.credit)


def run() -> None:
    """Does what the arguments say, and exits."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (SettingsError, UnexpectedPooler) as error:
        sys.stderr.write(f"naka: {in_one_line(error)}\n")
        sys.exit(2)
    except (
        NakaError,
        AddressTaken,
        ValidationError,
        *STORE_ERRORS,
    ) as error:
        sys.stderr.write(f"naka: {in_one_line(error)}\n")
        sys.exit(1)
