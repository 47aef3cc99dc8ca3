"""`naka serve` and `naka migrate`."""

import asyncio
import gc
from typing import Annotated

import typer
from sqlalchemy import text

from api.cli.command import load_database_settings, load_settings
from api.cli.processes.start import check_start
from core.descriptors import connections_that_fit, needed, raise_limit, require_enough
from core.lifeline import end_with_parent
from core.logs import configure_logs, get_logger
from core.postgres.database import Database
from core.postgres.url import PostgresUrl
from core.settings import Settings

Host = Annotated[str, typer.Option(help="The address to listen on.")]
WithParent = Annotated[bool, typer.Option("--with-parent", help="End when standard input does.", hidden=True)]
Fd = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Listen on this inherited listening socket, in place of --host and --port: a worker and the one that "
        "replaces it share it, so that no connection is lost in between.",
        show_default=False,
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 takes a free one.")]


def serve(host: Host = "127.0.0.1", port: Port = 8000, *, fd: Fd = None, with_parent: WithParent = False) -> None:
    """Serve the API and the pages, until SIGTERM or Ctrl-C; a second one ends running answers at once."""
    if with_parent:
        end_with_parent()
    gc.disable()  # what a start makes stays: looking through it for garbage is a sixth of its time
    from api.app import create_app  # noqa: PLC0415
    from api.http import server  # noqa: PLC0415 - the other commands need not wait for the whole application

    gc.freeze()
    gc.enable()
    settings = load_settings()
    settings.require_servers()
    descriptors = raise_limit()
    require_enough(descriptors)
    asyncio.run(_check_start(settings))
    configure_logs(level=settings.log_level, as_json=settings.log_format == "json")
    listener = server.listen(host, port) if fd is None else server.inherit(fd)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    typer.echo(f"Naka listens on {url}", err=True)
    server.serve(
        create_app(settings),
        listener,
        settings=settings,
        max_connections=_max_connections(settings, descriptors),
        announce=lambda: typer.echo("Naka is ready", err=True),
    )


def _max_connections(settings: Settings, descriptors: int) -> int:
    """The configured bound, or what the limit of descriptors leaves room for. Logs which."""
    fit, log = connections_that_fit(settings, descriptors), get_logger(__name__)
    if descriptors < needed(settings):
        log.warning("file_descriptors_few", limit=descriptors, needed=needed(settings), max_connections=fit)
    else:
        log.info("file_descriptors", limit=descriptors, max_connections=fit)
    return fit


def migrate() -> None:
    """Bring the database to this version's schema, roles and privileges."""
    from migrations import upgrade  # noqa: PLC0415 - as above

    settings = load_database_settings()
    owner = settings.postgres_owner
    asyncio.run(_check(settings, "SELECT 1", url=owner))
    upgrade.migrate(owner, settings.postgres)
    typer.echo("the database has this version's schema", err=True)


async def _check_start(settings: Settings) -> None:
    await check_start(settings)
    await _check(settings)


async def _check(
    settings: Settings,
    question: str = "SELECT count(*) FROM usage_requests LIMIT 0",
    *,
    url: PostgresUrl | None = None,
) -> None:
    """Raises what the database raises, before a server would say it with a stack trace."""
    database = Database(url or settings.postgres, pool_size=1, timeout_s=settings.store_deadline_s)
    try:
        async with database.session() as session:
            await session.execute(text(question))
    finally:
        await database.close()
