"""`naka worker`: what is done in the background. Any number may run; one must."""

import asyncio

from api.cli.command import load_settings
from api.cli.processes.server import WithParent
from api.cli.processes.start import check_start
from api.cli.signals import ending_signals
from core.lifeline import end_with_parent
from core.logs import configure_logs
from core.settings import Settings


def work(*, with_parent: WithParent = False) -> None:
    """Do what is done in the background: partitions, the nightly check of the books, recovery."""
    if with_parent:
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
    from api.worker import build_worker  # noqa: PLC0415 - the other commands need not wait for it; a stop comes first

    await build_worker(settings).run(stop)
