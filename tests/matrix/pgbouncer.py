"""Naka without a pooler and behind Debian's pgbouncer in both modes: equal accounts, and the cost of each.

    python -m tests.matrix.pgbouncer [REQUESTS [WAY...]]

For each: an API and a worker as processes, chats 20 at a time, a report, and the worker's reconciliation. During the
chats pgbouncer is killed and restarted, so that outcomes are in doubt. Exits with 1 when the accounts differ from the
provider's ledger or between the modes.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from core.queue import post
from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests import servers
from tests.answers import Answer
from tests.harness import Account, Api, Books, Simulator, chat, client, environment, running
from tests.pgbouncer import PgBouncer
from tests.programs import Process, starter, until

AT_ONCE = 20
WAYS = ("none", "session", "transaction")


@contextmanager
def way(database_url: str, mode: str) -> Iterator[tuple[dict[str, str], PgBouncer | None]]:
    """Yields the settings for the mode, and the pooler."""
    if mode == "none":
        yield {}, None
        return
    with PgBouncer(database_url, mode, size=60) as pooler:
        yield {"DATABASE_URL": pooler.url, "DATABASE_POOLER": mode, "DATABASE_DIRECT_URL": database_url}, pooler


async def ask(url: str, account: Account, requests: int, pooler: PgBouncer | None) -> tuple[list[Answer], list[float]]:
    """Sends all chats and returns their answers and durations; kills and restarts the pooler halfway."""
    took: list[float] = []
    free = asyncio.Semaphore(AT_ONCE)

    async with client(url) as http:

        async def one(number: int) -> Answer:
            async with free:
                if number == requests // 2 and pooler is not None:
                    await asyncio.to_thread(pooler.kill)
                    await asyncio.to_thread(pooler.start)
                began = time.perf_counter()
                answer = await chat(http, account, f"number {number}")
                took.append(time.perf_counter() - began)
                return answer

        return list(await asyncio.gather(*map(one, range(requests)))), took


async def books_agree(books: Books, account: Account, simulator: Simulator, worker: Process) -> bool:
    """Compares rows, rollups and meters with the provider's ledger, and runs the reconciliation."""
    rows, *sums = [
        await books.sums(table, account.tenant_id) for table in ("usage_requests", "usage_daily", "usage_meters")
    ]
    async with books.connection() as connection:
        await post(connection, "reconcile")

    async def checked() -> bool:
        return bool(await books.fetch("SELECT 1 FROM reconciliations"))

    await until(checked)
    (report,) = await books.fetch("SELECT drifts FROM reconciliations")
    served = sum(row["input_tokens"] for row in simulator.ledger())
    assert worker.process.poll() is None
    return all(rows == other for other in sums) and rows["input_tokens"] == served and report["drifts"] == 0


async def run(mode: str, requests: int, database_url: str, redis_url: str, folder: Path) -> bool:
    """Runs one mode and prints its cost."""
    simulator, books = Simulator(), Books(database_url)
    account = await books.account()
    with ExitStack() as stack:
        stack.callback(simulator.stop)
        more, pooler = stack.enter_context(way(database_url, mode))
        settings = environment(database_url, redis_url, simulator.url) | more
        start = stack.enter_context(starter(folder))
        api = stack.enter_context(running(Api(settings, folder / "api.log")))
        worker = start("api.cli", "worker", **(settings | {"LOG_LEVEL": "info"}))
        await worker.says("worker_ready")
        began = time.perf_counter()
        answers, took = await ask(api.url, account, requests, pooler)
        whole_s = time.perf_counter() - began
        done = sum(answer.done for answer in answers)
        await until(lambda: _is_settled(books))
        good = await books_agree(books, account, simulator, worker)
    await books.close()
    median, worst = statistics.median(took), max(took)
    words = f"{requests / whole_s:6.1f}/s  median {median * 1000:5.0f} ms  worst {worst * 1000:6.0f} ms"
    books_say = "exact" if good else "DIFFER"
    sys.stdout.write(f"{mode:12} {done} of {requests} answered  {words}  books {books_say}\n")
    sys.stdout.flush()
    return good and (pooler is not None or done == requests)


async def _is_settled(books: Books) -> bool:
    return not await books.fetch("SELECT 1 FROM usage_requests WHERE state = 'open' LIMIT 1")


def main() -> None:
    """Runs all modes in turn."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    os.environ.setdefault("REQUIRE_BROWSER", "1")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="naka-matrix-")))
        folder.chmod(0o755)
        server = stack.enter_context(Postgres(folder / "postgres", settings=servers.FAST_POSTGRES))
        redis = stack.enter_context(Valkey(folder / "valkey", settings=servers.FAST_VALKEY))
        good = True
        for number, mode in enumerate(sys.argv[2:] or WAYS):
            url = servers.create_database(server.url, f"naka_{mode}")
            migrate(url)
            (folder / mode).mkdir()
            at = servers.at_path(redis.url, str(number))
            good &= asyncio.run(run(mode, requests, url, at, folder / mode))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
