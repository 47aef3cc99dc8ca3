"""Deliberately slow clients against a `naka serve`: their cost, and the effect on other clients.

    python -m tests.attacks.slow_clients [--scale 1.0]

In turn: silent connections, slow heads, unfinished bodies of 1 MB without a key, and streams whose client does not
read; beside each, another client chats. The timeouts of bodies and readers are a fifth and a tenth of the defaults.
Prints memory and descriptors before, at the peak and after; the other client's waits; and when the last attacker was
disconnected. Fails when one outlives its timeout by more than a few seconds, or a chat fails.
"""

import argparse
import asyncio
import json
import resource
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests.harness import Account, Api, Books, Simulator, chat, client, environment, running, scripted

HEAD_S, BODY_S, STALL_S = 10.0, 6.0, 6.0
SLACK_S = 15
SILENT, HEADS, BODIES, READERS = 1000, 1000, 150, 200
BODY_BYTES = 1_000_000
MUCH = ["x" * 10_000] * 70
"""An answer larger than the socket buffers."""
SETTINGS = {
    "CLIENT_HEAD_TIMEOUT_S": f"{HEAD_S}",
    "CLIENT_BODY_TIMEOUT_S": f"{BODY_S}",
    "CLIENT_STALL_TIMEOUT_S": f"{STALL_S}",
    "REQUEST_BODY_MAX_BYTES": f"{2 * BODY_BYTES}",
    "CHAT_MAX_TOKENS": "128000",
    "DIRECTORY_TTL_S": "60",
}
Clients = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


@dataclass
class Watch:
    """Samples of the server's memory and descriptors, and the waits of the other client."""

    pid: int
    rss_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)

    def sample(self) -> tuple[float, int]:
        """Returns the resident megabytes and the open descriptors."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6, len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @asynccontextmanager
    async def during(self, api: Api, account: Account) -> AsyncIterator[None]:
        """Samples and chats during the block."""
        self.rss_mb, self.descriptors, self.waits_ms = [], [], []
        tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._chat(api, account))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(outcome, asyncio.CancelledError):
                    raise SystemExit(f"the other client failed: {outcome!r}")

    async def _look(self) -> None:
        while True:
            rss_mb, descriptors = self.sample()
            self.rss_mb.append(rss_mb)
            self.descriptors.append(descriptors)
            await asyncio.sleep(0.1)

    async def _chat(self, api: Api, account: Account) -> None:
        async with client(api.url) as http:
            while True:
                began = time.monotonic()
                if not (await chat(http, account, scripted(words=20))).done:
                    raise AssertionError("a chat was not whole")
                self.waits_ms.append((time.monotonic() - began) * 1000)
                await asyncio.sleep(0.02)


async def connect(port: int, many: int, *, small: bool = False) -> Clients:
    """Opens so many connections; `small`: with minimal socket buffers."""
    made: Clients = []
    for _ in range(many):
        own = socket.socket()
        if small:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        own.setblocking(False)  # noqa: FBT003 - its only parameter
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
        made.append(await asyncio.open_connection(sock=own, limit=2000))
    return made


async def silent(api: Api, _: Account, scale: float) -> Clients:
    """Silent connections."""
    return await connect(api.port, round(SILENT * scale))


async def heads(api: Api, _: Account, scale: float) -> Clients:
    """Heads that send a line now and then."""
    clients = await connect(api.port, round(HEADS * scale))
    for turn in range(6):
        for _reader, writer in clients:
            writer.write(b"POST /chat HTTP/1.1\r\n" if turn == 0 else b"x-drip: 1\r\n")
        await asyncio.sleep(0.3)
    return clients


async def bodies(api: Api, _: Account, scale: float) -> Clients:
    """Bodies of 1 MB without their last byte, to a route that reads one, without a key."""
    clients = await connect(api.port, round(BODIES * scale))
    head = (
        f"POST /v1/admin/tenants HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {BODY_BYTES}"
    )
    for _reader, writer in clients:
        writer.write(f"{head}\r\n\r\n".encode() + b"x" * (BODY_BYTES - 1))
    return clients


async def readers(api: Api, account: Account, scale: float) -> Clients:
    """Streams whose client does not read."""
    clients: Clients = []
    body = json.dumps({"message": scripted(pieces=MUCH)}).encode()
    head = f"POST /chat HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {account.key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    for _number in range(round(READERS * scale)):
        ((reader, writer),) = await connect(api.port, 1, small=True)
        clients.append((reader, writer))
        writer.write(head.encode() + body)
        if b"200 OK" not in await reader.readuntil(b"\r\n\r\n"):
            raise SystemExit("a stream was refused")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # every transport of a socket can
    return clients


async def attack(
    name: str,
    start: Callable[[Api, Account, float], Awaitable[Clients]],
    within_s: float,
    watch: Watch,
    api: Api,
    accounts: tuple[Account, Account],
    scale: float,
) -> None:
    """Runs one kind, until its last connection is closed, and prints a line."""
    rss_before, descriptors_before = watch.sample()
    async with watch.during(api, accounts[1]):
        clients = await start(api, accounts[0], scale)
        began = time.monotonic()
        deadline = began + within_s + SLACK_S
        while watch.sample()[1] > descriptors_before + 40 and time.monotonic() < deadline:  # noqa: ASYNC110 - from outside
            await asyncio.sleep(0.1)
        gone_s = time.monotonic() - began
        await asyncio.sleep(1)
    rss_after, descriptors_after = watch.sample()
    for _, writer in clients:
        with suppress(OSError):
            writer.transport.abort()
    waits = sorted(watch.waits_ms)
    chats = f"{len(waits)}: {waits[len(waits) // 2]:.0f} / {waits[len(waits) * 99 // 100]:.0f} / {waits[-1]:.0f}"
    gone = f"{gone_s:.1f} (clock {within_s:.0f})"
    print(
        f"| {len(clients)} {name} | {rss_before:.0f} / {max(watch.rss_mb):.0f} / {rss_after:.0f} | "
        f"{descriptors_before} / {max(watch.descriptors)} / {descriptors_after} | {gone} | {chats} |",
        flush=True,
    )
    if gone_s >= within_s + SLACK_S:
        raise SystemExit(f"{name}: still there {gone_s:.0f} s after the last of them came")


async def attacks(api: Api, accounts: tuple[Account, Account], scale: float) -> None:
    """Runs all kinds in turn, after a run without attack."""
    watch = Watch(api.process.pid)
    async with watch.during(api, accounts[1]):
        await asyncio.sleep(5)
    print("| attackers | MB resident: before / peak / after | descriptors | gone after s | chats: p50 / p99 / max ms |")
    print("|---|---|---|---|---|")
    for name, start, within_s in (
        ("silent connections", silent, HEAD_S),
        ("heads that drip", heads, HEAD_S),
        ("unfinished bodies of 1 MB without a key", bodies, BODY_S),
        ("streams that nobody reads", readers, 2 * STALL_S),
    ):
        await attack(name, start, within_s, watch, api, accounts, scale)


async def accounts_of(database: str) -> tuple[Account, Account]:
    """Creates the attacker's account and the other client's."""
    books = Books(database)
    try:
        return await books.account(), await books.account()
    finally:
        await books.close()


def main() -> None:
    """Starts everything, attacks, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    scale = parser.parse_args().scale
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="naka-attack-")))
        database = stack.enter_context(Postgres(home / "postgres")).url
        valkey = stack.enter_context(Valkey(home / "valkey")).url
        simulator = Simulator()
        stack.callback(simulator.stop)
        migrate(database)
        accounts = asyncio.run(accounts_of(database))
        api = stack.enter_context(running(Api(environment(database, valkey, simulator.url, **SETTINGS), home / "log")))
        try:
            asyncio.run(attacks(api, accounts, scale))
        finally:
            lines = [line for line in (home / "log").read_text().splitlines() if "warning" in line or "error" in line]
            print(f"{len(lines)} warnings and errors in the server's log", *lines[-5:], sep="\n")


if __name__ == "__main__":
    main()
