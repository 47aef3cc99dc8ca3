"""Shows that a page of requests, entries or audit changes costs the same at any table size and with any filter.

    python -m tests.attacks.lists [--rows 500000 5000000]

Own Postgres. For each size, over 12 months: the blocks read and the time of a first page and one from the middle, for
every filter of `tests.request_rows`.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg

from core.clock import now_ms
from core.ids import uuid7_floor
from core.postgres.database import Database
from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from tests.request_rows import MONTH_MS, fill, lists, page_cost
from tests.servers import FAST_POSTGRES, asyncpg_dsn

_MONTHS = 12


def main() -> None:
    """Measures both sizes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 5_000_000])
    options = parser.parse_args()
    columns = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="naka-attack-") as home:
            Path(home).chmod(0o755)
            with Postgres(Path(home) / "postgres", settings=FAST_POSTGRES) as postgres:
                migrate(postgres.url)
                columns.append(asyncio.run(_measure(postgres.url, rows)))
    print(f"{'blocks of the first page, of one in the middle; ms':50}" + "".join(f"{n:>28,}" for n in options.rows))
    for name in columns[0]:
        print(
            f"{name:50}"
            + "".join(f"{first:>12}{middle:>8}{ms:>8.1f}" for first, middle, ms in (c[name] for c in columns))
        )


async def _measure(url: str, rows: int) -> dict[str, tuple[int, int, float]]:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    await fill(connection, rows, months=_MONTHS)
    await connection.close()
    database, found = Database(url), {}
    middle = uuid7_floor(now_ms() - _MONTHS * MONTH_MS // 2)
    for name, read in lists().items():
        await page_cost(database, read)
        began = time.perf_counter()
        async with database.session() as session:
            await read(session, None)
        ms = (time.perf_counter() - began) * 1000
        found[name] = (await page_cost(database, read))[0], (await page_cost(database, read, middle))[0], ms
    await database.close()
    return found


if __name__ == "__main__":
    main()
