"""Chooses the form of an answer of `/chat`: by the WebSocket that asks, or by `Accept`.

The client's weights decide (RFC 9110, 12.5.1); of equal ones the first of `_FORMS` wins, so that `*/*`, no header, and
a header that accepts several get events. So do headers that accept none or cannot be read: `/chat` has always ignored
them.
"""

from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qs

from starlette.types import Scope

from api.gateway.chat.codecs import ChatCodec, JsonCodec, LinesCodec, PlainCodec
from api.gateway.chat.ui_codec import UiCodec
from api.gateway.codec import Codec
from api.http.body import InvalidBody
from api.http.problems import REQUEST_ID

IN_SOCKET = "naka.in_socket"
"""The scope key of a request that a WebSocket asks."""
_FORMS = ("text/event-stream", "application/json", "text/plain")
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


def chat_codec(scope: Scope) -> Callable[[], Codec]:
    """Returns the maker of the codec of a request to `/chat`. Raises InvalidBody for an unreadable `usage`."""
    tells_usage = wants_usage(scope)
    if IN_SOCKET in scope:
        return lambda: LinesCodec(tells_usage=tells_usage, request_id=scope[REQUEST_ID])
    match accepted(scope):
        case "application/json":
            return lambda: JsonCodec(scope[REQUEST_ID])
        case "text/plain":
            return PlainCodec
        case _:
            return partial(_events, scope) if tells_usage else ChatCodec


def _events(scope: Scope) -> ChatCodec:
    return ChatCodec(tells_usage=True, request_id=scope[REQUEST_ID])


def ui_codec(scope: Scope) -> Callable[[], Codec]:
    """Returns the maker of the codec of a request to `/chat/ui`. Raises InvalidBody for an unreadable `usage`."""
    tells_usage = wants_usage(scope)
    return lambda: UiCodec(tells_usage=tells_usage, request_id=scope[REQUEST_ID])


def wants_usage(scope: Scope) -> bool:
    """Whether the end of the answer is to tell its usage (`?usage=1`)."""
    query: bytes = scope["query_string"]
    if b"usage" not in query:
        return False
    found = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("usage", ["0"])[-1]
    if found not in _FLAGS:
        raise InvalidBody("usage: must be 0 or 1")
    return _FLAGS[found]


def accepted(scope: Scope) -> str:
    """The form with the greatest weight in `Accept`."""
    sent = [value for name, value in scope["headers"] if name == b"accept"]
    if not sent or sent == [b"*/*"]:
        return _FORMS[0]
    ranges = _ranges(b",".join(sent).decode("latin-1"))
    return max(_FORMS, key=partial(_weight, ranges))  # the first of equal ones


def _ranges(accept: str) -> dict[str, float]:
    """The weight of each media range. Its other parameters are ignored."""
    ranges = dict[str, float]()
    for item in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            ranges[media_range] = min(1.0, max(0.0, float(weight)))
        except ValueError:
            ranges[media_range] = 0.0
    return ranges


def _weight(ranges: dict[str, float], media_type: str) -> float:
    """The weight of the most specific range that matches."""
    for media_range in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if media_range in ranges:
            return ranges[media_range]
    return 0.0
