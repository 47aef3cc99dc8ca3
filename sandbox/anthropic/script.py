"""The script in a prompt: `[[sim {"cut_after": 3}]]` anywhere in a message's text.

A script applies to its own request only, so tests may run concurrently. A malformed marker or unknown field is a 400.
The last marker of a conversation counts; markers are ordinary text for the token count.
"""

import json
import re
from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=3_600_000)]
Status = Annotated[int, msgspec.Meta(ge=400, le=599)]

_MARKER = re.compile(r"\[\[sim(?![A-Za-z0-9_])\s*")
_END = re.compile(r"\s*\]\]")
_JSON = json.JSONDecoder()


class ScriptError(Exception):
    """A marker that cannot be understood; the request is answered 400 with this text."""


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One request's orders. Every field has a default, and they combine freely.

    A *piece* is one delta of text. The `*_after` fields are numbers of pieces sent before the fault; the
    smallest wins, and one beyond the last piece strikes after it, before `content_block_stop`. Thinking
    deltas come before all pieces and are not counted as such.

    In an answer that is not streamed, `error_first` and `error_after` are HTTP errors, `cut_after` cuts the
    socket in the middle of the body, `end_after` and `bad_json_after` send a body that stops half-way,
    `stall_after` never answers; the rest of the stream's shape does not apply.
    """

    ref: str | None = None
    """Label copied into the ledger, and the key of `fail_times`."""

    # What is said.
    text: str | None = None
    """The answer, cut into pieces of a few words by the simulator."""
    pieces: tuple[str, ...] | None = None
    """The exact text deltas, one event each; overrides `text`."""
    words: Size | None = None
    """Make a text of exactly this many tokens; used when neither `text` nor `pieces` is given."""
    thinking: Size = 0
    """Tokens of thinking, in deltas before the text; part of the output tokens and of `max_tokens`."""
    stop_reason: str | None = None
    """Say this stop reason, whatever the real one was."""
    refusal: Literal["empty", "partial"] | None = None
    """Stop reason `refusal`: with no content and no output at all, or after the whole text."""
    model: str | None = None
    """Echo this model instead of the one asked for."""

    # What the usage says, in tokens.
    input_tokens: Count | None = None
    """Instead of the counted input."""
    cache_read_input_tokens: Count = 0
    """Beside `input_tokens`, not taken from it; the same for the two below."""
    cache_creation_5m: Count = 0
    cache_creation_1h: Count = 0
    output_tokens: Count | None = None
    """Report exactly this, even beyond `max_tokens`; the text stays as it is."""
    start_output_tokens: Count = 1
    """The placeholder in `message_start`."""
    usage_delta_input: bool = False
    """Repeat the input and cache counts in `message_delta`."""

    # When.
    head_delay_ms: Millis = 0
    """Before the response headers, and before an HTTP error."""
    first_delay_ms: Millis | None = None
    """Between the first block's start and its first delta; null: as `piece_delay_ms`."""
    piece_delay_ms: Millis | None = None
    """Before every later delta; null: the server's pace."""

    # In what shape.
    chunk_bytes: Size = 0
    """Cut the byte stream anew in chunks of N bytes, through frames and characters; 0: a chunk an event."""
    coalesce: bool = False
    """Hold everything back and send it as one write (and then in chunks, if `chunk_bytes` says so)."""
    crlf: bool = False
    """End the lines of SSE with CRLF."""
    pings: bool = False
    """A ping before each delta of text, not only the usual one after the first block's start."""
    unknown_events: bool = False
    """Events, deltas and fields of unknown type, and blanks before the closing brace of each JSON."""

    # What goes wrong.
    status: Status | None = None
    """Answer with this HTTP error."""
    fail_times: Size | None = None
    """Do so only the first N times that this `ref` asks; null: always."""
    error_type: str | None = None
    """The type in the error body or event; null: the one that belongs to `status`, else `overloaded_error`."""
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds in the `retry-after` header of an HTTP error; null: no header."""
    error_first: bool = False
    """An `error` event instead of `message_start`."""
    error_after: Size | None = None
    """Then an `error` event, and the end of the body."""
    cut_after: Size | None = None
    """Then the socket is closed in the middle of a chunk."""
    end_after: Size | None = None
    """Then the body ends cleanly, without `message_delta` and `message_stop`."""
    stall_after: Size | None = None
    """Then nothing more comes, until the client leaves."""
    bad_json_after: Size | None = None
    """Then an event whose data is not JSON, and the end of the body."""
    empty_body: bool = False
    """A 200 without a body."""
    cut_first: bool = False
    """The socket is closed in the middle of `message_start`."""
    end_before_stop: bool = False
    """The body ends cleanly after `message_delta`, without `message_stop`."""

    # count_tokens.
    count_skew: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] = 0
    """Added to the number that count_tokens answers, which never goes below 0."""
    count_status: Status | None = None
    """count_tokens fails with this HTTP error."""
    count_delay_ms: Millis = 0
    """Before count_tokens answers."""

    def __post_init__(self) -> None:
        """Refuse what could not mean anything."""
        if self.fail_times is not None and (self.ref is None or self.status is None):
            raise ValueError("fail_times needs ref and status")


def read_markers(text: str) -> tuple[Script | None, str]:
    """Return the last script in a text, and the text without its markers.

    Raises `ScriptError` for a marker that is not well formed. A JSON string inside a script may hold
    another marker: it belongs to the answer, not to this request.
    """
    script, rest, start = None, "", 0
    while marker := _MARKER.search(text, start):
        try:
            _, end = _JSON.raw_decode(text, marker.end())
            script = msgspec.json.decode(text[marker.end() : end].encode(), type=Script)
        except ValueError as error:  # of the JSON, of its shape, of a lone surrogate
            raise ScriptError(f"[[sim ...]]: {error}") from error
        closing = _END.match(text, end)
        if closing is None:
            raise ScriptError("[[sim ...]]: no ]] after the JSON")
        rest += text[start : marker.start()]
        start = closing.end()
    return script, rest + text[start:]
