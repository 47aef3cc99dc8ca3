"""`naka serve`, `naka worker` and `naka migrate`. At least one worker must run; any number may."""

import asyncio
import gc
from typing import Annotated

import typer
from sqlalchemy import text

from api.cli.command import load_database_settings, load_settings
from api.cli.processes.start import check_start
from api.cli.signals import ending_signals
from core.descriptors import connections_that_fit, descriptors_needed, raise_limit, require_enough
from core.logs import configure_logs, get_logger
from core.parent_exit import end_with_parent, take_variables
from core.postgres.database import Database
from core.postgres.url import PostgresUrl
from core.settings import Settings

Host = Annotated[str, typer.Option(help="The address to listen on.")]
WithParent = Annotated[
    bool,
    typer.Option(
        "--with-parent",
        help="Take variables from the first line of standard input, and end when that ends.",
        hidden=True,
    ),
]
Fd = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Listen on this inherited socket in place of --host and --port. A process and its successor can share it, "
        "so that no connection is lost during a restart.",
        show_default=False,
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 chooses a free one.")]


def serve(host: Host = "127.0.0.1", port: Port = 8000, *, fd: Fd = None, with_parent: WithParent = False) -> None:
    """Serve the API and the pages until SIGTERM or Ctrl-C; a second signal cuts open answers."""
    gc.disable()  # imports create few garbage objects: collecting takes a sixth of their time
    from api.app import create_app  # noqa: PLC0415
    from api.http import server  # noqa: PLC0415 - imports the whole application

    gc.freeze()
    gc.enable()
    if with_parent:  # after the imports: `naka up` starts this process before the servers that the variables name
        take_variables()
        end_with_parent()
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
    """The configured bound, or fewer where the limit of file descriptors is lower. Logs which."""
    fit, log = connections_that_fit(settings, descriptors), get_logger(__name__)
    if descriptors < descriptors_needed(settings):
        log.warning("file_descriptors_few", limit=descriptors, needed=descriptors_needed(settings), max_connections=fit)
    else:
        log.info("file_descriptors", limit=descriptors, max_connections=fit)
    return fit


def work(*, with_parent: WithParent = False) -> None:
    """Run background jobs: partitions, recovery, billing, the nightly reconciliation."""
    if with_parent:
        take_variables()
        end_with_parent()
    settings = load_settings()
    settings.require_servers()
    settings.require_session()
    configure_logs(level=settings.log_level, as_json=settings.log_format == "json")
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in ending_signals():
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await check_start(settings)
    from api.worker import Worker  # noqa: PLC0415 - long imports; stop signals are handled before

    await Worker(settings).run(stop)


def migrate() -> None:
    """Upgrade the database to this version's schema, roles and privileges."""
    from migrations import upgrade  # noqa: PLC0415 - imports Alembic

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
    """Raises the database's errors early: a server would log them with a stack trace."""
    database = Database(url or settings.postgres, pool_size=1, timeout_s=settings.store_deadline_s)
    try:
        async with database.session() as session:
            await session.execute(text(question))
    finally:
        await database.close()
