"""The bytes of Anthropic's responses that any answer has: SSE frames, the error body, the headers.

`odd` frames are valid too, but unusual: extra fields, and spaces before the closing brace.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import uuid4

import msgspec

from sandbox.anthropic.errors import ApiError

Json = dict[str, Any]
Headers = list[tuple[bytes, bytes]]

_PADDING = b" " * 14  # as seen in a public capture, Helicone #4678
_UNKNOWN_FIELD = {"since": "tomorrow", "of": [1, {"two": None}]}
_ORGANIZATION_ID = b"00000000-0000-4000-8000-000000000000"
_WORKSPACE_ID = b"wrkspc_00simulator"
_LIMITS = {"requests": 4_000, "tokens": 2_400_000, "input-tokens": 2_000_000, "output-tokens": 400_000}

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
BAD_JSON = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":\n\n'


def new_request_id() -> str:
    """Make a request id in Anthropic's form."""
    return f"req_011{uuid4().hex[:21]}"


def new_message_id() -> str:
    """Make a message id in Anthropic's form."""
    return f"msg_01{uuid4().hex[:22]}"


@lru_cache(maxsize=2)
def _limit_headers(second: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return the rate limit headers of one second; the simulator never runs low."""
    reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)).encode()
    return tuple(
        (b"anthropic-ratelimit-%b-%b" % (meter.encode(), part), value)
        for meter, limit in _LIMITS.items()
        for part, value in ((b"limit", b"%d" % limit), (b"remaining", b"%d" % limit), (b"reset", reset))
    )


def headers(request_id: str, content_type: bytes, more: Mapping[str, str] | None = None) -> Headers:
    """Return the headers of any answer; one of `more` replaces one of the same name."""
    head = [
        (b"content-type", content_type),
        (b"request-id", request_id.encode()),
        (b"anthropic-organization-id", _ORGANIZATION_ID),
        (b"anthropic-workspace-id", _WORKSPACE_ID),
        *_limit_headers(int(time.time())),
    ]
    extra = {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in (more or {}).items()}
    return [item for item in head if item[0] not in extra] + list(extra.items())


def frame(name: str, payload: Json, *, odd: bool = False) -> bytes:
    """Encode one event, line ends LF; the JSON itself never has a line end."""
    if odd:
        payload = payload | {"unknown_field": _UNKNOWN_FIELD}
        data = msgspec.json.encode(payload)[:-1] + _PADDING + b"}"
    else:
        data = msgspec.json.encode(payload)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def error_body(request_id: str, error: ApiError) -> Json:
    """Return the body of an HTTP error, which is also the data of an `error` event."""
    details = None if error.error_code is None else {"error_code": error.error_code}
    return {
        "type": "error",
        "error": {"type": error.error_type, "message": error.message, "details": details},
        "request_id": request_id,
    }


def error_headers(request_id: str, error: ApiError) -> Headers:
    """Return the headers of an HTTP error, with `retry-after` if it has one."""
    head = headers(request_id, b"application/json", error.headers)
    if error.retry_after is not None:
        head.append((b"retry-after", f"{error.retry_after:.10g}".encode()))
    return head
