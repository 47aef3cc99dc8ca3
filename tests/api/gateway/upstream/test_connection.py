"""Connections to the provider under attack: odd heads, ends, reuse, readers that pause, TLS and tunnels."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from api.gateway.upstream.answer import Answer, ConnectionFault
from api.gateway.upstream.pool import UpstreamPool, UpstreamRequest

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"content-length: 2\r\n\r\nok"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
LARGE = b"x" * (32 << 20)
MANY = 16 << 20


@dataclass
class Provider:
    """A server made of a conversation; it notes the requests, and the number of its connections."""

    talk: Talk
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            await self.talk(reader, writer)
        writer.close()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """Reads a request whole; returns its body."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
        return await reader.readexactly(int(lengths[0].split()[1]) if lengths else 0)


@asynccontextmanager
async def provider(talk: Talk | None = None, *, says: bytes = b"", tls: ssl.SSLContext | None = None) -> Any:
    """A provider that talks so, or answers each request with the same bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await made.request(reader)
            writer.write(says)

    made = Provider(talk or answer)
    server = await asyncio.start_server(made, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


@asynccontextmanager
async def pool_of(made: Provider, scheme: str = "http", **options: Any) -> AsyncIterator[UpstreamPool]:
    """The connections to a provider."""
    url = f"{scheme}://localhost:{made.port}" if scheme == "https" else f"http://127.0.0.1:{made.port}"
    pool = UpstreamPool(url, **{"keepalive_s": 60, "connect_timeout_s": 5, **options})
    yield pool
    await pool.close()


async def whole(answer: Answer) -> bytes:
    """Reads an answer to its end."""
    body = b""
    async with asyncio.timeout(20):
        while piece := await answer.read():
            body += piece
    return body


ASK = UpstreamRequest([(b"x-one", b"1")], [b"{}"])

ENDS: dict[str, tuple[bytes, bytes | None, bool]] = {
    # what the provider says, the body, and whether the connection is used again
    "a length": (SHORT, b"ok", True),
    "chunks": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok", True),
    "chunks and a trailer": (CHUNKED + b"2\r\nok\r\n0\r\nrequest-id: another\r\n\r\n", b"ok", True),
    "no body": (b"HTTP/1.1 204 No\r\n\r\n", b"", True),
    "an error": (b"HTTP/1.1 529 No\r\ncontent-length: 2\r\n\r\nno", b"no", True),
    "interim heads": (b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + SHORT, b"ok", True),
    "a line too many": (SHORT + b"\r\n", b"ok", True),
    "connection: close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
    "a second answer": (SHORT + SHORT, b"ok", False),
    "the beginning of a second answer": (SHORT + b"HTTP/1.1 200", b"ok", False),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", None, False),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", None, False),
    "two lengths": (OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok!", None, False),
    "a length and chunks": (
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        None,
        False,
    ),
    "a chunk that is none": (CHUNKED + b"2\r\nok\r\nzz\r\n", None, False),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_a_connection_is_used_again_only_after_a_clean_end(end: tuple[bytes, bytes | None, bool]) -> None:
    says, body, again = end
    async with provider(says=says) as made, pool_of(made) as pool:
        for _ in range(2):
            if body is None:
                with pytest.raises(ConnectionFault):
                    await whole(await pool.ask(ASK))
            else:
                answer = await pool.ask(ASK)
                assert await whole(answer) == body
                assert answer.headers.get("request-id") is None
                answer.close()
                answer.pause()
                answer.resume()
            await asyncio.sleep(0.02)
        assert made.connections == (1 if again else 2)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_without_length_ends_with_its_connection(version: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made.request(reader)
        writer.write(b"HTTP/" + version + b" 200 OK\r\n\r\nhalf and")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b" half")

    async with provider(talk) as made, pool_of(made) as pool:
        for _ in range(2):
            assert await whole(await pool.ask(ASK)) == b"half and half"
        assert made.connections == 2


@pytest.mark.parametrize(
    "says", [OK + b"content-length: 9\r\n\r\nok", CHUNKED + b"2\r\nok\r\n", CHUNKED + b"2\r\nok\r\n0\r\n"]
)
async def test_a_cut_body_is_an_error(says: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made.request(reader)
        writer.write(says)

    async with provider(talk) as made, pool_of(made) as pool:
        with pytest.raises(ConnectionFault):
            await whole(await pool.ask(ASK))


FLOODS: dict[str, tuple[bytes, bytes]] = {
    "headers": (OK, b"x-more: " + b"y" * 1000 + b"\r\n"),
    "one header": (OK + b"x-more: ", b"y" * 1000),
    "interim heads": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 40),
    "a trailer": (CHUNKED + b"2\r\nok\r\n0\r\n", b"x-more: " + b"y" * 1000 + b"\r\n"),
    "one line of a trailer": (CHUNKED + b"2\r\nok\r\n0\r\nx-more: ", b"y" * 1000),
    "a chunk's extension": (CHUNKED + b"2;", b"y" * 1000),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_what_is_no_body_is_bounded(flood: tuple[bytes, bytes]) -> None:
    first, then = flood
    taken = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await made.request(reader)
        writer.write(first)
        while taken < MANY:
            writer.write(then)
            await writer.drain()
            taken += len(then)

    async with provider(talk) as made, pool_of(made) as pool:
        with pytest.raises(ConnectionFault):
            await whole(await pool.ask(ASK))
    assert taken < MANY


async def test_an_early_answer_ends_the_writing() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.heads.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.readexactly(1 << 20)
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(0.5)

    sent: list[bool] = []
    async with provider(talk) as made, pool_of(made) as pool:
        async with asyncio.timeout(10):
            answer = await pool.ask(UpstreamRequest([], [LARGE]), lambda: sent.append(True))
        assert (answer.status, await whole(answer), sent) == (413, b"no", [])


async def test_a_body_that_was_cut_was_never_sent() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2 if b"content-length: 2\r\n" in head else 1 << 20)
        writer.transport.abort()

    sent: list[bool] = []
    async with provider(talk) as made, pool_of(made) as pool:
        with pytest.raises(ConnectionFault) as cut:
            await pool.ask(UpstreamRequest([], [LARGE]), lambda: sent.append(True))
        assert (cut.value.sent, sent) == (False, [])
        with pytest.raises(ConnectionFault) as lost:
            await pool.ask(ASK, lambda: sent.append(True))
        assert (lost.value.sent, sent) == (True, [True])


async def test_a_large_body_arrives_whole() -> None:
    bodies: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            bodies.append(await made.request(reader))
            writer.write(SHORT)

    parts: list[bytes | memoryview] = [b"a" * 300_000, memoryview(b"b" * 1_000_000), b"c"]
    async with provider(talk) as made, pool_of(made) as pool:
        for _ in range(2):
            assert await whole(await pool.ask(UpstreamRequest([], parts))) == b"ok"
        assert made.connections == 1
    assert bodies == [b"".join(parts)] * 2


async def test_a_cancelled_request_leaves_the_next_one_its_connection() -> None:
    """The answer ends in the turn of the loop in which its request is given up."""
    async with provider(says=SHORT) as made, pool_of(made) as pool:
        keep, cancelled = pool._keep, asyncio.Event()

        def keep_and_cancel(connection: Any) -> None:
            keep(connection)
            first.cancel()
            cancelled.set()

        pool._keep = keep_and_cancel  # type: ignore[method-assign]
        first = asyncio.create_task(pool.ask(ASK))
        await cancelled.wait()
        second = asyncio.create_task(pool.ask(ASK))
        assert await whole(await second) == b"ok"
        assert made.connections == 1


async def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made.request(reader)
        writer.write(SHORT)
        await writer.drain()
        closed.set()

    closed = asyncio.Event()
    async with provider(talk) as made, pool_of(made) as pool:
        for _ in range(3):
            closed.clear()
            answer = await pool.ask(ASK)
            assert await whole(answer) == b"ok"
            await closed.wait()
            time.sleep(0.05)  # noqa: ASYNC251 - a loop that is too busy to read the end
        assert made.connections == 3


async def test_an_old_connection_is_not_used() -> None:
    async with provider(says=SHORT) as made, pool_of(made, keepalive_s=0.1) as pool:
        for _ in range(2):
            assert await whole(await pool.ask(ASK)) == b"ok"
            time.sleep(0.12)  # noqa: ASYNC251 - no timer runs
        assert made.connections == 2


async def test_a_half_closed_connection_is_lost() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made.request(reader)
        writer.write(SHORT if made.connections % 2 else b"")
        writer.write_eof()
        await reader.read()

    async with provider(talk) as made, pool_of(made) as pool:
        assert await whole(await pool.ask(ASK)) == b"ok"
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionFault) as lost:
            await pool.ask(ASK)
        assert lost.value.sent
        assert made.connections == 2


@pytest.mark.slow
@pytest.mark.parametrize("piped", [True, False])
async def test_an_answer_that_nobody_takes_is_not_read_and_then_comes_whole(*, piped: bool) -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await made.request(reader)
        writer.write(OK + b"content-length: %d\r\n\r\n" % MANY)
        for number in range(256):
            writer.write(bytes([number]) * (MANY // 256))
            await writer.drain()
            sent += MANY // 256

    got = bytearray()
    over = asyncio.Event()
    async with provider(talk) as made, pool_of(made) as pool:
        answer = await pool.ask(ASK)
        if piped:
            answer.pipe(got.extend, over.set)
            answer.pause()
            assert answer.is_paused
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < MANY
        assert len(got) + answer._buffered < 1 << 20
        answer.resume()
        if piped:
            async with asyncio.timeout(20):
                await over.wait()
        else:
            got += await whole(answer)
        assert bytes(got) == b"".join(bytes([number]) * (MANY // 256) for number in range(256))
        assert not answer.is_paused


@pytest.mark.parametrize(("end", "error"), [(b"0\r\n\r\n", None), (b"no chunk\r\n", ConnectionFault)])
async def test_chunks_that_arrive_together_are_one_piece_before_the_end(
    end: bytes, error: type[Exception] | None
) -> None:
    """The provider sends each event as a chunk: a write is a third of what a piece costs."""
    heads = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made.request(reader)
        writer.write(CHUNKED)
        await heads.wait()
        writer.write(b"1\r\na\r\n" + b"2\r\nbc\r\n" + b"1\r\nd\r\n" + end)
        await writer.drain()

    seen: list[bytes | str] = []
    over = asyncio.Event()

    def end_it() -> None:
        seen.append("the end")
        over.set()

    async with provider(talk) as made, pool_of(made) as pool:
        answer = await pool.ask(ASK)
        answer.pipe(seen.append, end_it)
        heads.set()
        async with asyncio.timeout(20):
            await over.wait()
    assert seen == [b"abcd", "the end"]
    assert type(answer.error) is (error or type(None))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of localhost, with its key."""
    made = tmp_path_factory.mktemp("tls") / "localhost.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {made}.key -out {made}.crt"
    command = ["openssl", *words.split(), "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    made.write_text(Path(f"{made}.key").read_text() + Path(f"{made}.crt").read_text())
    return made


def served_with(certificate: Path) -> ssl.SSLContext:
    """The context of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.slow
async def test_tls(certificate: Path) -> None:
    def trusting() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=certificate)

    async with provider(says=SHORT, tls=served_with(certificate)) as made:
        async with pool_of(made, "https", tls=trusting) as pool:
            for _ in range(3):
                assert await whole(await pool.ask(ASK)) == b"ok"
                await asyncio.sleep(0.02)
            assert made.connections == 1
        async with pool_of(made, "https") as strict:
            with pytest.raises(ConnectionFault) as refused:
                await strict.ask(ASK)
            assert not refused.value.sent


@pytest.mark.parametrize("status", [b"200 Established", b"407 No", b"hello"])
async def test_a_tunnel_with_credentials(certificate: Path, status: bytes) -> None:
    heads: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 " + status + b"\r\nvia: proxy\r\n\r\n")
        if status.startswith(b"200"):
            back, forth = await asyncio.open_connection("127.0.0.1", made.port)
            await asyncio.gather(_copy(reader, forth), _copy(back, writer))

    async with provider(says=SHORT, tls=served_with(certificate)) as made, provider(tunnel) as proxy:
        options = {
            "proxy": f"http://us%40er:p%3Ass@127.0.0.1:{proxy.port}",
            "tls": lambda: ssl.create_default_context(cafile=certificate),
        }
        async with pool_of(made, "https", **options) as pool:
            if not status.startswith(b"200"):
                with pytest.raises(ConnectionFault) as refused:
                    await pool.ask(ASK)
                assert not refused.value.sent
                assert made.connections == 0
            else:
                for _ in range(2):
                    assert await whole(await pool.ask(ASK)) == b"ok"
                assert proxy.connections == made.connections == 1
                assert not [head for head in made.heads if b"proxy-authorization" in head]
        assert heads[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % made.port)
        assert b"proxy-authorization: Basic dXNAZXI6cDpzcw==\r\n" in heads[0]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
