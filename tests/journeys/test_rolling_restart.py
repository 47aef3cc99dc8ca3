"""Workers replace each other on one listening socket, under load: no client loses anything that was admitted."""

import asyncio
import json
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from api.http.server import NotAListener, inherit
from tests.api.raw import head, post
from tests.harness import Account, Api, Books, Simulator, scripted
from tests.raw_connection import RawConnection, Reply

CLIENTS = 20
SETTINGS = {"SHUTDOWN_DRAIN_S": "0.2", "SHUTDOWN_GRACE_S": "20"}


class Client:
    """Sends requests repeatedly, on a kept connection, or on a new one each time."""

    def __init__(self, port: int, account: Account, *, keeps: bool, seed: int) -> None:
        self._port = port
        self._account = account
        self._keeps = keeps
        self._random = random.Random(seed)
        self._connection: RawConnection | None = None
        self.replies: list[Reply] = []
        self.again = 0
        """Requests that met a closed idle connection and were sent again on a new one."""

    async def run(self, until: asyncio.Event) -> None:
        while not until.is_set():
            reply = await self._ask()
            self.replies.append(reply)
            if reply.is_last or not self._keeps:
                await self._hang_up()
            await asyncio.sleep(self._random.uniform(0.02, 0.2))
        await self._hang_up()

    async def _ask(self) -> Reply:
        script = scripted(ref=self._account.key_id.hex, words=self._random.randint(1, 6), piece_delay_ms=20)
        request = post(self._account, json.dumps({"message": script}).encode())
        if self._connection is not None and not self._connection.is_over:
            try:
                self._connection.send(request)
                return await self._connection.reply()
            except (asyncio.IncompleteReadError, ConnectionError):
                assert not self._connection.received, "an answer was cut"
                self.again += 1
        await self._hang_up()
        self._connection = await RawConnection.open(self._port, request)
        return await self._connection.reply()  # a new connection: whatever breaks here is a loss

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@contextmanager
def workers(environment: dict[str, str], folder: Path, listener: socket.socket) -> Iterator["Workers"]:
    """Starts workers on the socket, and stops those still running at the end."""
    with ExitStack() as stack:
        yield Workers(environment | SETTINGS, folder, listener, stack)


class Workers:
    """The supervisor."""

    def __init__(self, environment: dict[str, str], folder: Path, listener: socket.socket, stack: ExitStack) -> None:
        self._environment = environment
        self._folder = folder
        self._listener = listener
        self._stack = stack

    async def start(self) -> Api:
        """Starts a worker and waits until it listens."""
        made = Api(self._environment, self._folder / f"worker-{uuid4().hex}.log", listener=self._listener)
        self._stack.callback(made.stop)
        return await asyncio.to_thread(made.await_listening)

    async def replace(self, worker: Api) -> Api:
        """Starts the next worker, stops this one, and checks its exit code."""
        following = await self.start()
        worker.send(signal.SIGTERM)
        assert await asyncio.to_thread(worker.process.wait, 15) == 0
        return following


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """The socket shared by the workers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as made:
        yield made


@pytest.mark.slow
async def test_under_load(
    books: Books, simulator: Simulator, story_environment: dict[str, str], run_folder: Path, listener: socket.socket
) -> None:
    account = await books.account()
    port = listener.getsockname()[1]
    early = await RawConnection.open(port, head("GET /healthz"))  # nobody serves yet: it waits in the queue
    clients = [Client(port, account, keeps=number % 2 == 0, seed=number) for number in range(CLIENTS)]
    enough = asyncio.Event()
    with workers(story_environment, run_folder, listener) as supervisor:
        worker = await supervisor.start()
        assert (await early.reply()).status == 200
        await early.close()
        load = [asyncio.create_task(client.run(enough)) for client in clients]
        for _ in range(2):
            worker = await supervisor.replace(worker)
        await asyncio.sleep(0.3)
        enough.set()
        await asyncio.gather(*load)
        worker.send(signal.SIGTERM)
        assert await asyncio.to_thread(worker.process.wait, 15) == 0

    replies = [reply for client in clients for reply in client.replies]
    assert {(reply.status, reply.is_done) for reply in replies} == {(200, True)}
    served = simulator.ledger(account.key_id.hex)
    assert {entry["state"] for entry in served} == {"completed"}
    rows = await books.requests(account)
    assert {(row["state"], row["outcome"], row["source"]) for row in rows} == {("settled", "completed", "final")}
    assert Counter(row["upstream_request_id"] for row in rows) == Counter(entry["request_id"] for entry in served)
    assert len(rows) == len(replies) > 3 * CLIENTS
    assert len({row["process_id"] for row in rows}) == 3
    sums = await books.sums("usage_requests", account.tenant_id)
    assert sums["output_tokens"] == sum(entry["output_tokens"] for entry in served)
    assert await books.sums("usage_daily", account.tenant_id) == sums
    assert await books.sums("usage_meters", account.tenant_id) == sums


def test_what_is_no_listening_socket_is_refused(listener: socket.socket) -> None:
    with socket.socket() as bound, socket.socket(type=socket.SOCK_DGRAM) as datagrams, ExitStack() as stack:
        bound.bind(("127.0.0.1", 0))
        pipe = os.pipe()
        for end in pipe:
            stack.callback(os.close, end)
        for fd in (bound.fileno(), datagrams.fileno(), pipe[0], 99_999):
            with pytest.raises(NotAListener, match=f"file descriptor {fd}"):
                inherit(fd)
    with inherit(os.dup(listener.fileno())) as taken:
        assert taken.getsockname() == listener.getsockname()
