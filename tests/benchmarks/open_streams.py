"""Memory of the API per open answer, in each form: resident bytes before and while many wait for their provider.

    python -m tests.benchmarks.open_streams [--many 400]

Each request has heard two pieces of text. Counted is all that an answer takes: the
request, its connections from the client and to the provider, its recorder and tasks.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests.harness import Api, Books, Simulator, environment, running, scripted
from tests.journeys.callers import Caller, eventually
from tests.journeys.forms import FORMS, Form

SETTINGS = {
    "CLIENT_MAX_CONNECTIONS_PER_ADDRESS": "5000",
    "REQUEST_DEADLINE_S": "3600",
    "UPSTREAM_READ_TIMEOUT_S": "600",
}
_WARM = 50
_TENANTS = 10
"""Each has a share of the connections."""


@contextmanager
def place() -> Iterator[tuple[Api, str, Simulator]]:
    """Starts a complete server."""
    with tempfile.TemporaryDirectory(prefix="naka-open-") as folder:
        home = Path(folder)
        simulator = Simulator()
        try:
            with Postgres(home / "postgres") as postgres, Valkey(home / "valkey") as valkey:
                migrate(postgres.url)
                settings = environment(postgres.url, valkey.url, simulator.url, **SETTINGS)
                with running(Api(settings, home / "naka.log")) as api:
                    yield api, postgres.url, simulator
        finally:
            simulator.stop()


def resident_kb(api: Api) -> int:
    """The resident memory of the API."""
    status = Path(f"/proc/{api.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


async def hold(api: Api, books: Books, simulator: Simulator, form: Form, many: int) -> float:
    """Returns kilobytes per open answer."""
    accounts = [await books.account() for _ in range(_TENANTS)]
    ref = accounts[0].key_id.hex

    async def opened(number: int) -> list[Caller]:
        message = scripted(ref=ref, pieces=["word ", "word "], stall_after=2)
        callers = [await Caller.ask(api, accounts[index % _TENANTS], message, form) for index in range(number)]

        async def all_sent() -> bool:
            rows = await asyncio.to_thread(simulator.ledger, ref)
            return len([row for row in rows if row["state"] == "open" and row["pieces_sent"] == 2]) == number

        await eventually(all_sent, within_s=120)
        await asyncio.sleep(1)
        return callers

    async def left(callers: list[Caller]) -> None:
        for caller in callers:
            await caller.leave()
        await asyncio.sleep(2)

    await left(await opened(_WARM))
    before = resident_kb(api)
    callers = await opened(many)
    held = resident_kb(api) - before
    await left(callers)
    return held / many


async def _run(api: Api, database: str, simulator: Simulator, form: Form, many: int) -> None:
    books = Books(database)
    try:
        print(f"{form.name:10}{await hold(api, books, simulator, form, many):8.1f} kB per open answer", flush=True)
    finally:
        await books.close()


def main() -> None:
    """Measures each form in a server of its own, which has no memory left over from another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=400)
    many = parser.parse_args().many
    for form in FORMS:
        with place() as (api, database, simulator):
            asyncio.run(_run(api, database, simulator, form, many))


if __name__ == "__main__":
    main()
