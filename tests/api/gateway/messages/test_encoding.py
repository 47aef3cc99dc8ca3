"""Compressed bodies: decoded within bounds, and given up as soon as they pass one."""

import gzip
import threading
import zlib

import pytest

from api.gateway.messages.encoding import BadEncoding, decode, read_large

MAX_BYTES = 8_000_000
TEXT = b",".join(b"%d" % (n * n) for n in range(450_000))  # 5 MB
GZIPPED = gzip.compress(TEXT, 1, mtime=0)


class Held:
    """The budget of bodies; `most` bytes of it are free."""

    def __init__(self, most: int = 10**9) -> None:
        self.bytes = 0
        self._most = most

    def __call__(self, size: int) -> None:
        if self.bytes + size > self._most:
            raise MemoryError
        self.bytes += size


async def decoded(
    body: bytes, encoding: str = "gzip", *, max_bytes: int = MAX_BYTES, held: Held | None = None
) -> bytes:
    return await decode(body, encoding, max_bytes=max_bytes, hold=held or Held())


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " x-gzip "])
@pytest.mark.parametrize("text", [b"", b"{}", TEXT, TEXT[: 1024 * 1024], TEXT[: 1024 * 1024 + 1]], ids=len)
async def test_gzip(encoding: str, text: bytes) -> None:
    held = Held()

    assert await decoded(gzip.compress(text, 1), encoding, held=held) == text
    assert held.bytes == len(text)


@pytest.mark.parametrize("encoding", ["", "identity"])
async def test_a_body_that_is_not_compressed_is_not_copied(encoding: str) -> None:
    body = b"{}"

    assert await decoded(body, encoding) is body


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "xylophone"])
async def test_another_encoding(encoding: str) -> None:
    with pytest.raises(BadEncoding) as refused:
        await decoded(b"{}", encoding)

    assert (refused.value.status, refused.value.error_code) == (400, "request_body_encoding_unsupported")
    assert "xylophone" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        GZIPPED[:-1],
        GZIPPED[:100],
        gzip.compress(b"{}", mtime=0) + b"x",
        zlib.compress(b"{}"),
    ],
    ids=lambda body: repr(body[:12]) + str(len(body)),
)
async def test_what_is_not_gzip(body: bytes) -> None:
    with pytest.raises(BadEncoding) as refused:
        await decoded(body)

    assert (refused.value.status, refused.value.error_code) == (400, "request_body_encoding_invalid")


@pytest.mark.slow
async def test_the_largest_body() -> None:
    assert await decoded(GZIPPED, max_bytes=len(TEXT)) == TEXT
    with pytest.raises(BadEncoding) as refused:
        await decoded(GZIPPED, max_bytes=len(TEXT) - 1)

    assert (refused.value.status, refused.value.error_code) == (413, "request_body_too_large_after_decoding")


async def test_a_bomb_is_given_up_early() -> None:
    held, bomb = Held(), gzip.compress(bytes(100_000_000))

    with pytest.raises(BadEncoding, match="at most 90000000 bytes"):
        await decoded(bomb, max_bytes=90_000_000, held=held)
    assert held.bytes < 25_000_000, "a thousandth was sent"


@pytest.mark.slow
async def test_memory_is_taken_before_it_is_used() -> None:
    held = Held(most=2 * 1024 * 1024)

    with pytest.raises(MemoryError):
        await decoded(GZIPPED, held=held)
    assert held.bytes > 1024 * 1024


async def test_a_large_body_is_read_in_a_thread() -> None:
    def thread_of(_: bytes) -> int:
        return threading.get_ident()

    assert await read_large(thread_of, bytes(1_000_000)) == threading.get_ident()
    assert await read_large(thread_of, bytes(1_000_001)) != threading.get_ident()
