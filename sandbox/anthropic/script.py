"""The script in a prompt: `[[sim {"cut_after": 3}]]` anywhere in a message's text, or JSON in `x-sandbox-script`.

A script applies to its own request only, so tests may run concurrently. A malformed marker or unknown field is a 400.
The last marker of a conversation counts, and any marker before the header; markers are ordinary text for the token
count. The package's docstring has examples.
"""

import json
import re
from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=3_600_000)]
Status = Annotated[int, msgspec.Meta(ge=400, le=599)]
Json = dict[str, Any]

_MARKER = re.compile(r"\[\[sim(?![A-Za-z0-9_])\s*")
_END = re.compile(r"\s*\]\]")
_JSON = json.JSONDecoder()


class ScriptError(Exception):
    """A marker that cannot be understood; the request is answered 400 with this text."""


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One request's orders. Every field has a default, and they combine freely.

    A *piece* is one delta of text, or of a tool's input after its empty first one. The `*_after` fields are numbers
    of pieces sent before the fault; the smallest wins, and one beyond the last piece strikes after it, before
    `content_block_stop`. Thinking deltas are not counted as pieces; with `count: "events"` every event is.

    In an answer that is not streamed, `error_first` and `error_after` are HTTP errors, `cut_after` cuts the
    socket in the middle of the body, `end_after` and `bad_json_after` send a body that stops half-way,
    `stall_after` never answers; the rest of the stream's shape does not apply.
    """

    ref: str | None = None
    """Label copied into the ledger, and the key of `fail_times`."""
    turns: "tuple[Script, ...] | None" = None
    """Scripts of this answer and of the following ones in the conversation; after the last one, none applies."""

    # What is said.
    text: str | None = None
    """The answer, cut into pieces of a few words by the simulator."""
    pieces: tuple[str, ...] | None = None
    """The exact text deltas, one event each; overrides `text`."""
    words: Size | None = None
    """Make a text of exactly this many tokens; used when neither `text` nor `pieces` is given."""
    blocks: tuple[Json, ...] | None = None
    """The content, block by block, as in an answer that is not streamed; overrides the three above. A missing `id` or
    `signature` is made. `pieces` gives the exact deltas of a text, thinking or tool input, and `tokens` the weight of
    a block. A server tool's call and result in one: `{"type": "web_search", ...}` (`answers.server_tools`)."""
    thinking: Size = 0
    """Tokens of thinking, in deltas before the text; part of the output tokens and of `max_tokens`."""
    display: Literal["summarized", "omitted"] | None = None
    """Whether thinking is shown; null: as the request says, else by the model, and without either shown."""
    stop_reason: str | None = None
    """Say this stop reason, whatever the real one was."""
    refusal: Literal["empty", "partial"] | None = None
    """Stop reason `refusal`: with no content and no output at all, or after the whole text."""
    model: str | None = None
    """Echo this model instead of the one asked for."""
    stop_details: Json | None = None
    container: Json | None = None
    message_fields: Json = {}
    """More fields of the message, of any name."""
    allow_threads: bool = False
    """Accept `thread`: the turns of the thread come before the request's own."""

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
    web_searches: Count | None = None
    """Instead of the successful searches among the blocks."""
    speed: str | None = None
    inference_geo: str | None = None
    service_tier: str | None = None
    iterations: tuple[Json, ...] | None = None
    """The inferences of the request, as in `usage.iterations`, in place of those that follow from the blocks: `type`,
    `model`, the counts (a missing one is 0). `charged` says whether the provider bills it; null: unless it has no
    output and is not the last. The top-level usage is made from them."""
    usage: Json = {}
    """Fields laid over the usage in `message_start` and in the whole answer; the ledger does not see them."""
    usage_delta: Json = {}
    """The same in `message_delta`."""

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
    splits: tuple[Size, ...] = ()
    """Sizes of the first chunks, in bytes; the rest as the other fields say."""
    crlf: bool = False
    """End the lines of SSE with CRLF."""
    pings: bool = False
    """A ping before each piece, not only the usual one after the first block's start."""
    unknown_events: bool = False
    """Events, deltas and fields of unknown type, and blanks before the closing brace of each JSON."""

    compress: Literal["gzip", "deflate"] | None = None
    """Compress the body, if `accept-encoding` names it."""
    headers: dict[str, str] = {}
    """More response headers, also of an HTTP error; one of the simulator's own is replaced."""
    raw: str | None = None
    """Base64 of the whole body, streamed or not, as it is; the ledger has the script's counts."""

    # What goes wrong.
    status: Status | None = None
    """Answer with this HTTP error."""
    fail_times: Size | None = None
    """Do so, or stall, only the first N times that this `ref` asks; null: always."""
    error_type: str | None = None
    """The type in the error body or event; null: the one that belongs to `status`, else `overloaded_error`."""
    error_message: str | None = None
    error_code: str | None = None
    """In the details of the error."""
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds in the `retry-after` header of an HTTP error; null: no header."""
    count: Literal["pieces", "events"] = "pieces"
    """Unit of the `*_after` fields; with events, 1 is after `message_start`."""
    cut_bytes: Count | None = None
    """The socket is closed after this many bytes of the body, streamed or not."""
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
        if self.fail_times is not None and (self.ref is None or (self.status is None) == (self.stall_after is None)):
            raise ValueError("fail_times needs ref, and either status or stall_after")
        if self.turns is not None and any(turn.turns is not None for turn in self.turns):
            raise ValueError("turns within turns")


def read_script(text: str) -> Script:
    """Return the script that a header holds; raises `ScriptError`."""
    try:
        return msgspec.json.decode(text.encode(), type=Script)
    except ValueError as error:
        raise ScriptError(str(error)) from error


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
