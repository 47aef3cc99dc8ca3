"""`naka spool`: settlements on this host's disk that Postgres refuses (poisoned), and their retry."""

import typer

from api.cli.command import AsJson, Call, Group, run_service, show
from api.schemas.usage.spool import Retried
from api.services.context import ServiceContext
from api.services.usage import spool
from core.logs import configure_logs

app = Group()


@app.answering("list", "request_id", "outcome", "model", "input_tokens", "output_tokens")
def list_poisoned() -> Call:
    """List the settlements that Postgres refuses."""
    return spool.list_poisoned


@app.command()
def retry(*, as_json: AsJson = False) -> None:
    """Settle what Postgres refused, once its cause is fixed. What is refused again is kept. Exit code 1 if any is."""
    retried = run_service(_retry)
    show(retried, as_json=as_json)
    if retried.refused_again:
        raise typer.Exit(1)


async def _retry(context: ServiceContext) -> Retried:
    configure_logs(level="error", as_json=False)  # the replay's own warnings are expected here
    return await spool.retry_poisoned(context)
