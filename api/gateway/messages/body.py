"""The body of `/v1/messages` and of its token count: read once, and sent on as it came. Pure.

Only what admission and the classification need is decoded; unknown fields pass. Text, schemas and base64 data are not
copied. A top-level field that is given twice is refused, as two readers could take different ones. `splice` replaces
`max_tokens` and `stream` and leaves every other byte alone; `only` takes some of the fields. What is decoded is bounded
in number before it is built: a few bytes of JSON become a hundred of objects.
"""

import re
from collections.abc import Collection
from itertools import islice
from typing import Any

import msgspec

from api.gateway.messages.fields import Block, Fields, Tool
from api.http.body import InvalidBody

_MAX_OBJECTS = 500_000
"""Opening braces, also those in texts: all that is decoded in number begins with one, but for top-level keys."""
_MAX_KEYS = 256
_MAX_BLOCKS = 200_000


class InvalidRequest(InvalidBody):
    """The request is not one that the Messages API could answer. The message names the field, never its value.

    `error_code` goes to `error.details`, where clients read it.
    """

    def __init__(self, message: str, *, error_code: str | None = None) -> None:
        super().__init__(message)
        self.error_code = error_code


class MessagesBody(msgspec.Struct, frozen=True):
    """A body: its bytes, its fields, and where in the bytes the value of each top-level field is (start and end).

    `blocks`: every content block. `tools`: every tool, those of `tools` and those that a turn adds.
    """

    raw: bytes
    fields: Fields
    blocks: tuple[Block, ...]
    tools: tuple[Tool, ...]
    places: dict[str, tuple[int, int]]

    @property
    def max_tokens(self) -> int:
        """The output that the caller asks for; 0 in a token count."""
        return self.fields.max_tokens or 0

    @property
    def stream(self) -> bool:
        """Whether the caller wants events."""
        return bool(self.fields.stream)


_fields = msgspec.json.Decoder(Fields).decode
_KEY = re.compile(rb'[ \t\r\n]*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_OPEN = re.compile(rb"[ \t\r\n]*+\{")
_NEXT = re.compile(rb"[ \t\r\n]*+[,}]")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_PLACE = re.compile(r" - at `(.*)`$")
_NOT_JSON = "The request body is not valid JSON in UTF-8."
_NAMES = frozenset(Fields.__struct_fields__)


def read_body(raw: bytes) -> MessagesBody:
    """Reads the body of `/v1/messages`. Raises InvalidRequest."""
    body = read_count_body(raw)
    if body.fields.max_tokens is None:
        raise InvalidRequest("max_tokens: Field required")
    return body


def read_count_body(raw: bytes) -> MessagesBody:
    """Reads the body of a token count, which needs no `max_tokens`. Raises InvalidRequest."""
    if raw.count(b"{") > _MAX_OBJECTS:
        raise InvalidRequest(f"body: may have at most {_MAX_OBJECTS} opening braces")
    places = _places(raw, _decoded(_top_level, raw))
    fields: Fields = _decoded(_fields, raw)
    blocks = tuple(islice(fields.blocks(), _MAX_BLOCKS + 1))
    if len(blocks) > _MAX_BLOCKS:
        raise InvalidRequest(f"messages: may have at most {_MAX_BLOCKS} content blocks")
    added = (block.tool.definition or block.tool for block in blocks if block.tool is not None)
    tools = (*(fields.tools or ()), *added)
    return MessagesBody(raw, fields, blocks, tools, places)


def splice(body: MessagesBody, *, max_tokens: int) -> list[bytes | memoryview]:
    """Returns the parts of the body with this `max_tokens` and `stream`; the other bytes are views of the same memory.

    A `stream` that is missing is added behind `max_tokens`. Needs a body that has `max_tokens` (`read_body`).
    """
    places, value = body.places, b"%d" % max_tokens
    if "stream" in places:
        changes = [(*places["max_tokens"], value), (*places["stream"], b"true")]
    else:
        changes = [(*places["max_tokens"], value + b',"stream":true')]
    view, at, parts = memoryview(body.raw), 0, list[bytes | memoryview]()
    for start, end, new in sorted(changes):
        parts += [view[at:start], new]
        at = end
    return [*parts, view[at:]]


def only(body: MessagesBody, names: Collection[str]) -> list[bytes | memoryview]:
    """Returns the parts of an object that has only these of the body's fields; values are views of the same memory.

    `names` are those of the API, with one that every body has.
    """
    view, parts, before = memoryview(body.raw), list[bytes | memoryview](), b"{"
    for name, (start, end) in body.places.items():
        if name in names:
            parts += [before + b'"%s":' % name.encode(), view[start:end]]
            before = b","
    return [*parts, b"}"]


class _Key(str):
    """A top-level key, counted while the object is decoded."""

    __slots__ = ()


def _top_level(raw: bytes) -> dict[str, msgspec.Raw]:
    keys = 0

    def count(_: type, key: str) -> _Key:
        nonlocal keys
        keys += 1
        if keys > _MAX_KEYS:
            raise InvalidRequest(f"body: may have at most {_MAX_KEYS} fields")
        return _Key(key)

    return dict(msgspec.json.decode(raw, type=dict[_Key, msgspec.Raw], dec_hook=count))


def _places(raw: bytes, values: dict[str, msgspec.Raw]) -> dict[str, tuple[int, int]]:
    """Returns the start and end of each top-level value. Raises InvalidRequest for a field that is given twice.

    The decoder keeps a repeated field's last value at its first place. So in the text each key must be the next one of
    `values`, with that very value: by induction every place found is then a real one.
    """
    start = _OPEN.match(raw)
    at, places = 0 if start is None else start.end(), dict[str, tuple[int, int]]()
    for name, value in values.items():
        key = _KEY.match(raw, at)
        found = "" if key is None else _name(key[1])
        if key is None or found != name or not raw.startswith(value, key.end()):
            raise _repeated(found)
        places[name] = key.end(), key.end() + memoryview(value).nbytes
        following = _NEXT.match(raw, places[name][1])
        if following is None:
            raise _repeated(name)
        at = following.end()
    again = _KEY.match(raw, at) if values else None
    if again is not None:
        raise _repeated(_name(again[1]))
    return places


def _name(key: bytes) -> str:
    return str(msgspec.json.decode(b'"' + key + b'"'))


def _repeated(name: str) -> InvalidRequest:
    """Names a field only if it is one of the API's: any other name is the caller's text."""
    return InvalidRequest(f"{name if name in _NAMES else 'body'}: Field given more than once")


def _decoded(decode: Any, raw: bytes) -> Any:
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_explained(str(error))) from None  # its context could show values
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidRequest(_NOT_JSON) from None


def _explained(message: str) -> str:
    """Returns the decoder's message as the API words it: `messages.0.content: Expected ...`."""
    place = _PLACE.search(message)
    path = "" if place is None else place[1].removeprefix("$").replace("[", ".").replace("]", "").strip(".")
    rule = message if place is None else message[: place.start()]
    missing = _MISSING.fullmatch(rule)
    if missing is not None:
        return f"{path}.{missing[1]}: Field required".strip(".")
    return f"{path or 'body'}: {rule}"
