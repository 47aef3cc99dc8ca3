"""The bytes of Anthropic's responses: SSE frames, the message object, the error body, the headers.

The fields are those of the real API. `odd` frames are valid too, but unusual: extra fields, and spaces before the
closing brace.
"""

import time
from functools import lru_cache
from uuid import uuid4

import msgspec

from sandbox.anthropic.answer import Answer, InputUsage
from sandbox.anthropic.request import ApiError

Json = dict[str, object]
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


def headers(request_id: str, content_type: bytes) -> Headers:
    """Return the headers of any answer."""
    return [
        (b"content-type", content_type),
        (b"request-id", request_id.encode()),
        (b"anthropic-organization-id", _ORGANIZATION_ID),
        (b"anthropic-workspace-id", _WORKSPACE_ID),
        *_limit_headers(int(time.time())),
    ]


def frame(name: str, payload: Json, *, odd: bool = False) -> bytes:
    """Encode one event, line ends LF; the JSON itself never has a line end."""
    if odd:
        payload = payload | {"unknown_field": _UNKNOWN_FIELD}
        data = msgspec.json.encode(payload)[:-1] + _PADDING + b"}"
    else:
        data = msgspec.json.encode(payload)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def error_body(request_id: str, error_type: str, message: str) -> Json:
    """Return the body of an HTTP error, which is also the data of an `error` event."""
    return {
        "type": "error",
        "error": {"type": error_type, "message": message, "details": None},
        "request_id": request_id,
    }


def error_headers(request_id: str, error: ApiError) -> Headers:
    """Return the headers of an HTTP error, with `retry-after` if it has one."""
    head = headers(request_id, b"application/json")
    if error.retry_after is not None:
        head.append((b"retry-after", f"{error.retry_after:.10g}".encode()))
    return head


def _usage(usage: InputUsage, output_tokens: int, thinking_tokens: int | None) -> Json:
    """Return the full usage, as in `message_start` and in an answer that is not streamed."""
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_5m + usage.cache_creation_1h,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_creation_5m,
            "ephemeral_1h_input_tokens": usage.cache_creation_1h,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
        "inference_geo": "global",
        "speed": "standard",
        "server_tool_use": None,
        "output_tokens_details": None if thinking_tokens is None else {"thinking_tokens": thinking_tokens},
    }


def _stop(answer: Answer) -> Json:
    """Return the fields that say why the answer ended."""
    refused = {"type": "refusal", "category": None, "explanation": "The simulator was told to refuse."}
    return {
        "stop_reason": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "stop_details": refused if answer.stop_reason == "refusal" else None,
        "container": None,
    }


def message_start(message_id: str, answer: Answer, *, placeholder: int, odd: bool) -> bytes:
    """Encode `message_start`; its output tokens are only a placeholder."""
    usage = _usage(answer.usage, placeholder, None)
    message: Json = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": usage | {"unknown_tokens": 7} if odd else usage,
    }
    return frame("message_start", {"type": "message_start", "message": message}, odd=odd)


def block_start(index: int, block: Json, *, odd: bool) -> bytes:
    """Encode `content_block_start`."""
    return frame(
        "content_block_start", {"type": "content_block_start", "index": index, "content_block": block}, odd=odd
    )


def block_delta(index: int, delta: Json, *, odd: bool) -> bytes:
    """Encode `content_block_delta`."""
    return frame("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}, odd=odd)


def text_delta(index: int, text: str, *, odd: bool) -> bytes:
    """Encode a delta of text; the hot one, so the plain form is put together by hand."""
    if odd:
        return block_delta(index, {"type": "text_delta", "text": text}, odd=True)
    return (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
        b'"delta":{"type":"text_delta","text":%b}}\n\n' % (index, msgspec.json.encode(text))
    )


def block_stop(index: int, *, odd: bool) -> bytes:
    """Encode `content_block_stop`."""
    return frame("content_block_stop", {"type": "content_block_stop", "index": index}, odd=odd)


def unknown_event() -> bytes:
    """Encode an event of a type that nobody knows yet."""
    return frame("future_event", {"type": "future_event", "index": 0, "delta": {"text": "not yours"}}, odd=True)


def unknown_delta(index: int) -> bytes:
    """Encode a delta of a type that nobody knows yet."""
    return block_delta(index, {"type": "shimmer_delta", "text": "not yours", "shimmer": 3}, odd=True)


def message_end(answer: Answer, *, repeat_input: bool, odd: bool) -> tuple[bytes, bytes]:
    """Encode `message_delta` and `message_stop`; the usage is cumulative and has no 5m/1h split."""
    usage: Json = {"output_tokens": answer.output_tokens}
    if repeat_input:
        usage["input_tokens"] = answer.usage.input_tokens
        usage["cache_creation_input_tokens"] = answer.usage.cache_creation_5m + answer.usage.cache_creation_1h
        usage["cache_read_input_tokens"] = answer.usage.cache_read_input_tokens
    if answer.thinking_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": answer.thinking_tokens}
    delta = frame("message_delta", {"type": "message_delta", "delta": _stop(answer), "usage": usage}, odd=odd)
    return delta, frame("message_stop", {"type": "message_stop"}, odd=odd)


def whole_message(message_id: str, answer: Answer) -> bytes:
    """Encode the answer that is not streamed."""
    content: list[Json] = []
    if answer.thinking:
        content.append({"type": "thinking", "thinking": "".join(answer.thinking), "signature": signature()})
    if answer.has_text:
        content.append({"type": "text", "text": "".join(answer.pieces)})
    usage = _usage(answer.usage, answer.output_tokens, answer.thinking_tokens or None)
    return msgspec.json.encode(
        {"id": message_id, "type": "message", "role": "assistant", "model": answer.model, "content": content}
        | _stop(answer)
        | {"usage": usage}
    )


def signature() -> str:
    """Return the signature of every simulated thinking block."""
    return "c2ltdWxhdGVk"
