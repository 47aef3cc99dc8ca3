"""`naka spool`: what is in this host's spool folder, and the retry of what Postgres refused.

Settlements that wait are replayed by any process that sees the folder. Those whose own data Postgres refuses (poisoned)
are not: somebody has to find out why, mend it, and retry them.
"""

import asyncio
from pathlib import Path

import typer
from pydantic import BaseModel

from api.cli.command import AsJson, load_database_settings, show, show_all
from core.errors import Unavailable
from core.logs import configure_logs
from core.postgres.database import Connections
from core.settings import Settings, SettingsError
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.spool import abandoned, poisoned, retry_poisoned
from metering.settlement.replay import Replay

_REDIS_TIMEOUT_S = 2
_LOOKS, _LOOK_S = 50, 0.2

app = typer.Typer(no_args_is_help=True, help="Settlements on this host's disk.")


class PoisonedItem(BaseModel):
    """A settlement that Postgres refuses."""

    tenant_id: str
    request_id: str
    outcome: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int


class Retried(BaseModel):
    """The result of a retry."""

    settled: int
    refused_again: int


@app.command("list")
def list_poisoned(*, as_json: AsJson = False) -> None:
    """List the settlements that Postgres refuses."""
    items = [
        PoisonedItem(
            tenant_id=str(settlement.tenant_id),
            request_id=str(settlement.id),
            outcome=settlement.outcome.value,
            model=settlement.model,
            input_tokens=settlement.usage.input_tokens,
            output_tokens=settlement.usage.output_tokens,
            cost_nano_usd=settlement.cost_nano_usd,
        )
        for settlement in poisoned(load_database_settings().spool_dir)
    ]
    show_all(items, ["request_id", "outcome", "model", "input_tokens", "output_tokens"], as_json=as_json)


@app.command()
def retry(*, as_json: AsJson = False) -> None:
    """Settle what Postgres refused, once its cause is mended. What is refused again is kept. Exit code 1 if any is."""
    configure_logs(level="error", as_json=False)
    settings = load_database_settings()
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set")
    tried = len(poisoned(settings.spool_dir))
    path = retry_poisoned(settings.spool_dir)
    if path is not None:
        asyncio.run(_replay(settings, path))
    refused = len(poisoned(settings.spool_dir))
    show(Retried(settled=max(0, tried - refused), refused_again=refused), as_json=as_json)
    if refused:
        raise typer.Exit(1)


async def _replay(settings: Settings, path: Path) -> None:
    """Returns once the file is replayed, be it by a process that was quicker. Raises Unavailable: it will be, later."""
    connections = Connections(settings.database_url, max_size=1, timeout_s=settings.store_deadline_s)
    lane = RedisPipeline(settings.redis_url, timeout_s=_REDIS_TIMEOUT_S)
    try:
        await connections.start()
        lane.start()
        replay = Replay(connections, QuotaScripts(lane), settings.spool_dir)
        for _ in range(_LOOKS):
            await replay.replay_file(path)
            if path not in abandoned(settings.spool_dir):
                return
            await asyncio.sleep(_LOOK_S)
        raise Unavailable("another process is still at it")
    finally:
        await lane.stop()
        await connections.close()
