"""Validation of requests, as Anthropic's for text chats.

Whatever the real API refuses is refused. Stricter where the simulator would be wrong: blocks other than text, tools and
the like are a 400.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec

from sandbox.anthropic.script import Script, ScriptError, read_markers
from sandbox.anthropic.tokens import count_text

MAX_BODY_BYTES = 32 * 1024 * 1024
REQUEST_OVERHEAD_TOKENS = 8  # per request, on top of the system prompt's and the messages' text
API_VERSIONS = frozenset({"2023-06-01", "2026-10-21"})

MODELS = frozenset(
    {
        *("claude-fable-5-2", "claude-mythos-5-2", "claude-haiku-5-5", "claude-sonnet-5-5", "claude-fable-5-1"),
        *("claude-opus-5-5", "claude-mythos-5-1", "claude-sonnet-5", "claude-fable-5", "claude-mythos-5"),
        *("claude-opus-5", "claude-opus-4-8", "claude-opus-4-7", "claude-mythos-preview", "claude-opus-4-6"),
        *("claude-sonnet-4-6", "claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-opus-4-5"),
        *("claude-opus-4-5-20251101", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
    }
)

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUSES = {error_type: status for status, error_type in ERROR_TYPES.items()}


class ApiError(Exception):
    """An HTTP error in Anthropic's shape; `retry_after` is in seconds, and None sends no header."""

    def __init__(
        self, status: int, message: str, *, error_type: str | None = None, retry_after: float | None = None
    ) -> None:
        """Take the error type from the status unless one is given."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_type = error_type or ERROR_TYPES.get(status, "api_error")
        self.retry_after = retry_after


def status_of(error_type: str) -> int:
    """Return the HTTP status that goes with an error type (500 for an unknown one)."""
    return _STATUSES.get(error_type, 500)


class TextBlock(msgspec.Struct, forbid_unknown_fields=True):
    """A block of text in a prompt; `cache_control` is taken and has no effect (script the cache counts)."""

    type: Literal["text"]
    text: Annotated[str, msgspec.Meta(min_length=1)]
    cache_control: dict[str, object] | None = None
    citations: list[object] | None = None


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str | list[TextBlock]


class CountBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of count_tokens, and what the two routes have in common."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    thinking: dict[str, object] | None = None
    cache_control: dict[str, object] | None = None
    output_config: dict[str, object] | None = None
    speed: Literal["standard", "fast"] | None = None


class MessagesBody(CountBody, forbid_unknown_fields=True, kw_only=True):
    """The body of messages; of what is optional only `stream` and `stop_sequences` have an effect."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    stream: bool = False
    stop_sequences: list[Annotated[str, msgspec.Meta(min_length=1)]] = []
    metadata: dict[str, object] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: str | None = None


_MESSAGES = msgspec.json.Decoder(MessagesBody)
_COUNT = msgspec.json.Decoder(CountBody)
_SAMPLING = ("temperature", "top_p", "top_k")


def check_headers(headers: Mapping[bytes, bytes], api_key: bytes) -> None:
    """Refuse a request without the right key (401) or without a known API version (400)."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    offered = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key")
    if offered is None:
        raise ApiError(401, "x-api-key header is required")
    if not secrets.compare_digest(offered, api_key):
        raise ApiError(401, "invalid x-api-key")
    version = headers.get(b"anthropic-version")
    if version is None:
        raise ApiError(400, "anthropic-version: header is required")
    if version.decode("latin-1") not in API_VERSIONS:
        raise ApiError(400, f"anthropic-version: {version.decode('latin-1')!r} is not a valid version")


def read_messages(raw: bytes) -> MessagesBody:
    """Decode and check the body of messages; raises `ApiError` (400, 404)."""
    try:
        body = _MESSAGES.decode(raw)
    except ValueError as error:
        raise _refusal(raw, error) from error
    _check(body)
    return body


def read_count(raw: bytes) -> CountBody:
    """Decode and check the body of count_tokens; raises `ApiError` (400, 404)."""
    try:
        body = _COUNT.decode(raw)
    except ValueError as error:
        raise _refusal(raw, error) from error
    _check(body)
    return body


def _refusal(raw: bytes, error: ValueError) -> ApiError:
    """Say why a body was not taken, as near to the real words as msgspec knows."""
    try:
        given = msgspec.json.decode(raw)
    except ValueError:
        return ApiError(400, f"The request body is not valid JSON: {error}")
    named = [name for name in _SAMPLING if isinstance(given, dict) and name in given]
    if named:
        return ApiError(400, f"{named[0]}: this parameter is not supported in this API version")
    return ApiError(400, str(error))


def _check(body: CountBody) -> None:
    """Check what the types do not say."""
    if body.model not in MODELS:
        raise ApiError(404, f"model: {body.model}")
    if any(not text.strip() for text in texts_of(body.system)):
        raise ApiError(400, "system: text content blocks must contain non-whitespace text")
    for position, turn in enumerate(body.messages):
        if not turn.content:
            raise ApiError(400, f"messages.{position}: text content must be non-empty")
        if any(not text.strip() for text in texts_of(turn.content)):
            raise ApiError(400, f"messages.{position}: text content blocks must contain non-whitespace text")
        if turn.role == "user" and any(block.citations for block in turn.content if isinstance(block, TextBlock)):
            raise ApiError(400, f"messages.{position}: citations are not allowed on user text blocks")


def texts_of(content: str | list[TextBlock] | None) -> Iterable[str]:
    """Yield the texts of a content or a system prompt."""
    if isinstance(content, str):
        return (content,)
    return (block.text for block in content or ())


def count_input(body: CountBody) -> int:
    """Count the input tokens: the overhead, the system prompt, and every text of every message."""
    texts = [*texts_of(body.system), *(text for turn in body.messages for text in texts_of(turn.content))]
    return REQUEST_OVERHEAD_TOKENS + sum(map(count_text, texts))


def read_script(body: CountBody) -> tuple[Script, str]:
    """Return what the prompt orders, and the last message's text without markers; raises `ApiError` (400)."""
    script, said = Script(), ""
    for turn in body.messages:
        said = ""
        for text in texts_of(turn.content):
            try:
                found, rest = read_markers(text) if "[[sim" in text else (None, text)
            except ScriptError as error:
                raise ApiError(400, str(error)) from error
            script, said = found or script, f"{said} {rest}"
    return script, said
