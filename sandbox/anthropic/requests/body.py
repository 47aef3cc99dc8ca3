"""The body of a request: bytes within Anthropic's bound, gzip taken off, and JSON."""

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import Receive

from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.wire import ClientGoneError

MAX_BODY_BYTES = 32 * 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS

Json = dict[str, Any]


async def receive_body(receive: Receive) -> bytes:
    """Read the body within Anthropic's bound; raises `ApiError` (413) or `ClientGoneError`."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ApiError(413, "Request exceeds the maximum size")
        parts.append(part)
    return b"".join(parts)


def decode_body(headers: Mapping[bytes, bytes], raw: bytes) -> bytes:
    """Take off the content encoding; raises `ApiError` (400, 413)."""
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if encoding in ("identity", ""):
        return raw
    if encoding not in ("gzip", "x-gzip"):
        raise ApiError(
            400,
            f"content-encoding: {encoding!r} is not supported; use gzip or none",
            error_code="request_body_encoding_unsupported",
        )
    unzip = zlib.decompressobj(_GZIP)
    try:
        plain = unzip.decompress(raw, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise _invalid() from error
    if len(plain) > MAX_BODY_BYTES:
        raise ApiError(
            413, "Request exceeds the maximum size after decoding", error_code="request_body_too_large_after_decoding"
        )
    if not unzip.eof or unzip.unused_data:
        raise _invalid()
    return plain


def read_json(raw: bytes) -> Json:
    """Decode the body; raises `ApiError` (400)."""
    try:
        body = msgspec.json.decode(raw)
    except ValueError as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The request body is not a JSON object")
    return body


def _invalid() -> ApiError:
    return ApiError(400, "The request body is not valid gzip", error_code="request_body_encoding_invalid")
