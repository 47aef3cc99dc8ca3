"""Memory of the API per open answer, in each form: resident bytes before and while many wait for their provider.

    python -m tests.benchmarks.open_streams [--many 400]

Each request has heard two pieces of text. Counted is all that an answer takes: the
request, its connections from the client and to the provider, its recorder and tasks.
"""

import argparse
import asyncio

from tests.complete_server import complete_server
from tests.harness import Api, Books, Simulator, scripted
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
    before = api.resident_kb()
    callers = await opened(many)
    held = api.resident_kb() - before
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
        with complete_server(**SETTINGS) as (api, database, simulator):
            asyncio.run(_run(api, database, simulator, form, many))


if __name__ == "__main__":
    main()
