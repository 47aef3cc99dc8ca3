"""The matrix of failing stores: `python -m tests.matrix`.

For each version of Postgres (15, 18) and Redis (Redis 7, Valkey 9) and each cell (`tests.matrix.cells`): requests work
before; during the failure running streams end with `done`, new requests get 503 within the deadline (or are served,
where possible), `/readyz` gives the reason, and a sign-in is answered in time; afterwards the accounts agree with the
provider's ledger to the token. Prints the longest waits of each cell, and exits with 1 if any cell fails.

Postgres 15 and Redis 7 are Debian's (`postgresql-15`, `redis-server`); missing ones are left out.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.harness import Simulator
from tests.matrix.cells import CELLS, Cell
from tests.matrix.setup import setup
from tests.matrix.trial import Unmet, tried

_POSTGRES = {"18": None, "15": Path("/usr/lib/postgresql/15/bin")}
_REDIS = {"valkey9": None, "redis7": Path("/usr/bin/redis-server")}
_PAIRS = (("18", "valkey9"), ("15", "redis7"))
_WAITS = ("chat", "readyz", "sign-in", "streams", "back")


async def run(pairs: list[tuple[str, str]], cells: list[Cell], deadline_s: float) -> int:
    """Returns the number of failed cells."""
    failed = 0
    simulator = Simulator()
    try:
        for postgres, redis in pairs:
            print(f"\nPostgres {postgres}, {redis}, deadline {deadline_s:g} s; longest waits in seconds")  # noqa: T201
            print(f"{'cell':24}" + "".join(f"{name:>9}" for name in _WAITS))  # noqa: T201
            left = list(cells)
            while left:
                failed += await _pair(postgres, redis, left, simulator, deadline_s)
    finally:
        simulator.stop()
    return failed


async def _pair(postgres: str, redis: str, left: list[Cell], simulator: Simulator, deadline_s: float) -> int:
    """Runs cells on one setup until one fails; the rest get a new setup."""
    home = Path(tempfile.mkdtemp(prefix="naka-matrix-"))
    programs = (_POSTGRES[postgres], _REDIS[redis])
    try:
        async with setup(home, simulator, deadline_s=deadline_s, programs=programs) as made:
            while left:
                cell = left.pop(0)
                made.account = await made.books.account()
                try:
                    waits = (await tried(made, cell)).longest_s
                except (Unmet, OSError, TimeoutError) as error:
                    print(f"{cell.name:24}  NOT MET: {error!r}", flush=True)  # noqa: T201
                    return 1
                print(f"{cell.name:24}" + "".join(f"{waits[name]:9.2f}" for name in _WAITS), flush=True)  # noqa: T201
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def main() -> None:
    """Reads the arguments, runs, exits."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description="Stores that fail, in every way.")
    parser.add_argument("--cell", action="append", choices=[cell.name for cell in CELLS], help="only this one")
    parser.add_argument("--postgres", choices=list(_POSTGRES), help="only this version")
    parser.add_argument("--all-pairs", action="store_true", help="each Postgres with each Redis")
    parser.add_argument("--deadline", type=float, default=5, metavar="S", help="STORE_DEADLINE_S of the API")
    given = parser.parse_args()
    pairs = [(postgres, redis) for postgres in _POSTGRES for redis in _REDIS] if given.all_pairs else list(_PAIRS)
    pairs = [
        (postgres, redis)
        for postgres, redis in pairs
        if given.postgres in (None, postgres) and _installed(_POSTGRES[postgres]) and _installed(_REDIS[redis])
    ]
    cells = [cell for cell in CELLS if given.cell is None or cell.name in given.cell]
    began_s = time.monotonic()
    failed = asyncio.run(run(pairs, cells, given.deadline))
    took_s = time.monotonic() - began_s
    print(f"\n{len(pairs) * len(cells)} cells, {failed} not met, {took_s:.0f} s")  # noqa: T201
    sys.exit(bool(failed))


def _installed(path: Path | None) -> bool:
    return path is None or path.exists()


if __name__ == "__main__":
    main()
