"""Compressed request bodies: gzip, decoded in bounded steps outside the event loop.

A body that expands beyond the setting, or a thousandfold, is given up at that point: what was decoded so far is all
the memory it costs, and that memory is taken from the budget of bodies first. A large body is read in a thread, too.
"""

import asyncio
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from core.errors import NakaError

_READ_BYTES = 256 * 1024
_STEP_BYTES = 1024 * 1024
_MAX_RATIO = 200
"""Text of prompts shrinks to a tenth or so, endlessly repeated lines to a hundredth; a bomb to a thousandth."""
_THREAD_BYTES = 1_000_000
"""Larger bodies are read outside the event loop."""
_GZIP = 16 + zlib.MAX_WBITS
_IDENTITY = frozenset({"", "identity"})
_KNOWN = frozenset({"gzip", "x-gzip"})

_Read = TypeVar("_Read")


class BadEncoding(NakaError):
    """The body cannot be decoded. `status` and `error_code` are those of Anthropic's API."""

    def __init__(self, message: str, *, status: HTTPStatus, error_code: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code


def _unsupported() -> BadEncoding:
    message = "content-encoding: only gzip and identity are supported"
    return BadEncoding(message, status=HTTPStatus.BAD_REQUEST, error_code="request_body_encoding_unsupported")


def _invalid() -> BadEncoding:
    message = "The request body is not valid gzip."
    return BadEncoding(message, status=HTTPStatus.BAD_REQUEST, error_code="request_body_encoding_invalid")


def _too_large(max_bytes: int) -> BadEncoding:
    message = f"The request body may have at most {max_bytes} bytes after decoding, and {_MAX_RATIO} for each sent."
    return BadEncoding(
        message,
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        error_code="request_body_too_large_after_decoding",
    )


async def read_large(read: Callable[[bytes], _Read], raw: bytes) -> _Read:
    """Returns what `read` makes of a body, of a large one in a thread. Raises whatever `read` raises."""
    return read(raw) if len(raw) <= _THREAD_BYTES else await asyncio.to_thread(read, raw)


async def decode(body: bytes, encoding: str, *, max_bytes: int, hold: Callable[[int], None]) -> bytes:
    """Returns the body without its `content-encoding`. Raises BadEncoding, and whatever `hold` raises.

    `hold` takes the memory of the next bytes before they are decoded, and gives back (a negative size) what they left.
    """
    encoding = encoding.strip().lower()
    if encoding in _IDENTITY:
        return body
    if encoding not in _KNOWN:
        raise _unsupported()
    most = min(max_bytes, max(_STEP_BYTES, len(body) * _MAX_RATIO))
    decoder, parts, size = zlib.decompressobj(_GZIP), list[bytes](), 0
    for start in range(0, len(body), _READ_BYTES):
        if decoder.eof:
            raise _invalid()  # something follows the compressed text
        rest: bytes | memoryview = memoryview(body)[start : start + _READ_BYTES]
        while True:
            step = min(_STEP_BYTES, most - size + 1)
            hold(step)
            try:
                part = await asyncio.to_thread(decoder.decompress, rest, step)
            except zlib.error as error:
                raise _invalid() from error
            size += len(part)
            if size > most:
                raise _too_large(max_bytes)
            hold(len(part) - step)
            parts.append(part)
            rest = decoder.unconsumed_tail
            if len(part) < step:
                break
    if not decoder.eof or decoder.unused_data:
        raise _invalid()
    return b"".join(parts)
