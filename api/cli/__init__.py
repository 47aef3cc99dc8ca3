"""`naka`: the operator's command line. The same operations as the admin API, on the database itself.

Whatever goes wrong is one line on standard error and exit code 1; a stack trace is for programmers.
"""

import sys

import typer
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, DBAPIError

from api.cli import corrections, keys, plans, prices, server, tenants, users
from api.cli.reconcile import prove
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
app.command("reconcile")(prove)
app.add_typer(tenants.app, name="tenant")
app.add_typer(users.app, name="user")
app.add_typer(keys.app, name="key")
app.add_typer(plans.app, name="plan")
app.add_typer(prices.app, name="price")
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
