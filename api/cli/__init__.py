"""`naka`: the operator's command line. The same operations as the admin API, on the database itself.

Whatever goes wrong is one line on standard error and exit code 1; a stack trace is for programmers.
"""

import sys

import typer
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, DBAPIError

from api.cli import (
    bills,
    charges,
    corrections,
    keys,
    plans,
    prices,
    profiles,
    reconcile,
    server,
    tenants,
    users,
    webhooks,
)
from api.cli.session import in_one_line
from api.cli.up import up
from api.cli.worker import work
from api.server import AddressTaken
from core.database import CONNECTION_ERRORS
from core.errors import NakaError
from core.settings import SettingsError

app = typer.Typer(
    name="naka",
    help="Meters, limits and bills an AI chat on Claude.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up)
app.command("serve")(server.serve)
app.command("worker")(work)
app.command("migrate")(server.migrate)
app.add_typer(reconcile.app, name="reconcile")
app.add_typer(tenants.app, name="tenant")
app.add_typer(users.app, name="user")
app.add_typer(keys.app, name="key")
app.add_typer(plans.app, name="plan")
app.add_typer(profiles.operator, name="operator")
app.add_typer(profiles.profile, name="profile")
app.add_typer(prices.app, name="price")
app.add_typer(bills.app, name="bill")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(charges.charge_app, name="charge")
app.add_typer(charges.refund_app, name="refund")
app.add_typer(charges.finding_app, name="finding")
app.command("correct")(corrections.correct)
app.command("credit")(corrections.credit)


def main() -> None:
    """The console script."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (
        NakaError,
        SettingsError,
        AddressTaken,
        ValidationError,
        ArgumentError,
        DBAPIError,
        *CONNECTION_ERRORS,
    ) as error:
        sys.stderr.write(f"naka: {in_one_line(error)}\n")
        sys.exit(1)
