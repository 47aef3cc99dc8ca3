"""CPU time of the API process per request and per separately arriving piece of text, beside the plain script.

    python -m tests.benchmarks.relay_cpu [--rounds 3]

Naka runs complete: key, quota in Valkey, journal and settlement in Postgres; then for the same user with a short-lived
token and two tags, one of them added up. Both programs are pinned to the last core,
all else to the first; they alternate for several rounds, and medians are compared. One piece: 32 requests in flight.
The cost of a piece is (CPU of an answer of 200 pieces, 4 ms apart, on 8 streams - CPU of an answer of one piece, one
after the other on 8 streams) / 199.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from core.tenancy.principal import Scope
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from sandbox.daemon import free_port
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests import fork_server, servers
from tests.harness import ROOT, SIMULATOR_KEY, Account, Api, Books, Simulator, environment, running

STREAMS = 8
IN_FLIGHT = 32
PACE_MS = 4
PIECES = 200
DONE = b"event: done"
TAGS = "feature=search,conversation=c-42"
ONE = json.dumps({"message": '[[sim {"pieces": ["The toll post counts."]}]]'})
MANY = json.dumps(
    {"message": "[[sim " + json.dumps({"pieces": ["a word or two "] * PIECES, "piece_delay_ms": PACE_MS}) + "]]"}
)


@dataclass
class Target:
    """A server under test: its process, port and key, and further header lines of its requests."""

    name: str
    process: fork_server.Program
    port: int
    key: str
    more: str = ""

    def cpu_ns(self) -> int:
        """Returns the CPU time of all its threads."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="naka-bench-")))
        os.sched_setaffinity(0, {cores[0]})
        targets = _targets(stack, home, cores[-1])
        figures: dict[str, list[tuple[float, float, float]]] = {target.name: [] for target in targets}
        for target in targets:
            asyncio.run(_drive(target, ONE, 64, IN_FLIGHT))
            asyncio.run(_drive(target, MANY, STREAMS, STREAMS))
        for number in range(options.rounds):
            for target in targets:
                one = _measure(target, ONE, 1600, IN_FLIGHT)
                many = _measure(target, MANY, 6 * STREAMS, STREAMS)
                single = _measure(target, ONE, 400, STREAMS)
                figures[target.name].append((one, many, (many - single) / (PIECES - 1)))
                piece = figures[target.name][-1][2]
                print(f"round {number + 1} {target.name}: {one:.0f} us/request, {piece:.1f} us/piece")
    _report(figures)


def _targets(stack: ExitStack, home: Path, core: int) -> list[Target]:
    database = stack.enter_context(Postgres(home / "postgres")).url
    valkey = stack.enter_context(Valkey(home / "valkey")).url
    simulator = Simulator()
    stack.callback(simulator.stop)
    database = servers.migrated(database)
    account, token_of = asyncio.run(_accounts(database))
    settings = environment(database, valkey, simulator.url)
    naka = stack.enter_context(running(Api(settings, home / "naka.log")))
    port = free_port()
    plain = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "tests.benchmarks.plain_script:app"),
            *("--port", str(port), "--no-access-log", "--log-level", "warning"),
        ],
        cwd=ROOT,
        env={**os.environ, "ANTHROPIC_API_KEY": SIMULATOR_KEY, "ANTHROPIC_BASE_URL": simulator.url},
    )
    stack.callback(plain.wait, 10)
    stack.callback(plain.terminate)
    _await(port)
    tags = f"Naka-Tags: {TAGS}\r\n"
    targets = [
        Target("plain script", plain, port, "-"),
        Target("Naka", naka.process, naka.port, account.key),
        Target("Naka, token and tags", naka.process, naka.port, token_of(naka.url), tags),
    ]
    for target in targets:
        for task in Path(f"/proc/{target.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})
    return targets


async def _accounts(database: str) -> tuple[Account, Callable[[str], str]]:
    """A user with a key, and what asks a server for a token of the same user."""
    books = Books(database)
    try:
        account = await books.account(
            limits=LimitSet(
                (
                    Limit(Meter.REQUESTS, WindowKind.MINUTE, 10**6),
                    Limit(Meter.TOKENS, WindowKind.DAY, 10**10),
                    Limit(Meter.SPEND, WindowKind.PERIOD, 10**12),
                ),
                concurrency=1000,
            )
        )
        backend = await books.account(tenant_id=account.tenant_id, scopes=[Scope.CHAT_AS_USER])
        ((name,),) = await books.fetch("SELECT external_id FROM users WHERE id = $1", account.user_id)
    finally:
        await books.close()

    def token_of(url: str) -> str:
        headers = backend.headers | {"content-type": "application/json"}
        asked = urllib.request.Request(f"{url}/v1/tokens", json.dumps({"user": name, "ttl_s": 3600}).encode(), headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return str(json.load(answer)["token"])

    return account, token_of


def _await(port: int) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the plain script did not start")


def _measure(target: Target, body: str, requests: int, at_once: int) -> float:
    """Returns microseconds of CPU per request."""
    before = target.cpu_ns()
    asyncio.run(_drive(target, body, requests, at_once))
    return (target.cpu_ns() - before) / 1000 / requests


async def _drive(target: Target, body: str, requests: int, at_once: int) -> None:
    """Sends `requests` over `at_once` keep-alive connections, and reads each answer to its `done`."""
    left = requests
    head = (
        f"POST /chat HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {target.key}\r\n"
        f"{target.more}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )

    async def stream() -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while left > 0:
            left -= 1
            writer.write(head.encode() + body.encode())
            answer = b""
            while not answer.endswith(b"0\r\n\r\n"):
                chunk = await reader.read(65536)
                if not chunk:
                    raise SystemExit(f"{target.name} hung up: {answer[-300:]!r}")
                answer = answer[-100:] + chunk
            if DONE not in answer:
                raise SystemExit(f"{target.name} did not finish: {answer[-300:]!r}")
        writer.close()

    await asyncio.gather(*(stream() for _ in range(at_once)))


def _report(figures: dict[str, list[tuple[float, float, float]]]) -> None:
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in figures.items()
    }
    plain = medians["plain script"]
    print("\n| | CPU per request, 1 piece | CPU per separately arriving piece |\n|---|---|---|")
    for name, (one, _, piece) in medians.items():
        print(f"| {name} | {one:.0f} us ({one / plain[0]:.2f}) | {piece:.1f} us ({piece / plain[2]:.2f}) |")


if __name__ == "__main__":
    main()
