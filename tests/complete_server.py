"""A complete server for programs: Postgres, Valkey, the provider's simulator and the API, in a temporary folder."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests.harness import Api, Simulator, environment, running


@contextmanager
def complete_server(
    prepare: Callable[[str], Coroutine[Any, Any, None]] | None = None, /, **settings: str
) -> Iterator[tuple[Api, str, Simulator]]:
    """Starts it for the block; yields the API, the database's URL and the simulator.

    `prepare` gets the URL of the migrated database before the API starts; keywords are changed settings.
    """
    with tempfile.TemporaryDirectory(prefix="naka-server-") as folder, ExitStack() as stack:
        home, simulator = Path(folder), Simulator()
        stack.callback(simulator.stop)
        database = stack.enter_context(Postgres(home / "postgres")).url
        valkey = stack.enter_context(Valkey(home / "valkey")).url
        migrate(database)
        if prepare is not None:
            asyncio.run(prepare(database))
        made = Api(environment(database, valkey, simulator.url, **settings), home / "naka.log")
        yield stack.enter_context(running(made)), database, simulator
