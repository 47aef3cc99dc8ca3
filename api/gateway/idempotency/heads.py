"""The heads of stored answers: status, headers, and the id of the request that was billed. Pure."""

from collections.abc import Sequence

import msgspec
from starlette.types import Message

from api.gateway.upstream.pool import Header

_REPLAYED = b"idempotency-replayed"
_OF_THE_RUN = frozenset({b"ratelimit", b"ratelimit-policy"})
"""The state of limits when the run was admitted, which a replay does not touch."""
_OK = 200


class Head(msgspec.Struct, array_like=True, frozen=True):
    """A stored head."""

    status: int
    headers: list[tuple[bytes, bytes]]
    request_id: str


def encode_head(status: int, headers: Sequence[Header], request_id: str) -> bytes:
    """Returns a head as it is stored."""
    kept = [pair for pair in headers if status != _OK or pair[0] not in _OF_THE_RUN]
    return msgspec.msgpack.encode(Head(status, kept, request_id))


def decode_head(data: bytes) -> Head:
    """Returns a stored head."""
    return msgspec.msgpack.decode(data, type=Head)


def own_head(message: Message) -> Message:
    """Returns the head for the client whose request runs."""
    return {**message, "headers": [*message["headers"], (_REPLAYED, b"false")]}


def replayed_head(head: Head) -> Message:
    """Returns the head for a request that did not run."""
    return {"type": "http.response.start", "status": head.status, "headers": [*head.headers, (_REPLAYED, b"true")]}
