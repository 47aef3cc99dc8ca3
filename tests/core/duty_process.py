"""A worker with one slow duty that records its start and end, for tests to stop and kill.

`python -m tests.core.duty_process URL SECONDS GRACE_S`; notes go to the table `notes`.
"""

import asyncio
import os
import signal
import sys

import asyncpg

from core.logs import configure_logs
from core.queue import Duty, Queue
from tests.servers import asyncpg_dsn

STALE_AFTER_S = 1


async def main(url: str, takes_s: float, grace_s: float) -> None:
    """Runs until SIGTERM."""
    dsn = asyncpg_dsn(url)

    async def note(word: str) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("INSERT INTO notes (pid, word) VALUES ($1, $2)", os.getpid(), word)
        await connection.close()

    async def slow() -> None:
        await note("began")
        await asyncio.sleep(takes_s)
        await note("done")

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    duty = Duty("slow", "0 0 1 1 *", slow)
    await Queue(dsn, [duty], timeout_s=5, stale_after_s=STALE_AFTER_S, grace_s=grace_s).serve(stop)


if __name__ == "__main__":
    configure_logs(level="info", as_json=True)
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
