"""The answer of `POST /chat/ui`: the UI message stream of the Vercel AI SDK (`useChat`).

The parts are those of the npm package `ai` 7, whose client checks each against a schema: `start`, `start-step`, one
text, `finish-step`, `finish`, then `[DONE]`. Its client raises an `error` part as an Error with `errorText` as the
message, and does so with the body of a refusal: both are the problem as JSON.
"""

from collections.abc import Iterator
from typing import Any

from starlette.types import Scope

from api.gateway.chat.codecs import TextCodec, encode, end_of
from api.gateway.sse import KEEPALIVE, STREAM_HEADERS
from api.gateway.upstream.client import UpstreamStream
from api.gateway.upstream.events import Event, MessageDelta, MessageStart, Text
from api.gateway.upstream.pool import Header
from api.http.problems import problem_of
from metering.journal.records import Settlement

UI_HEADERS = (*STREAM_HEADERS, (b"x-vercel-ai-ui-message-stream", b"v1"))
_TEXT_ID = "text"
_DELTA = b'data: {"type":"text-delta","id":"' + _TEXT_ID.encode() + b'","delta":'
_DONE = b"data: [DONE]\n\n"
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content-filter",
}
"""The SDK's word for the provider's; `other` for the rest."""


class UiCodec(TextCodec):
    """The codec of one answer. `request_id` is the id of the message; its usage, if asked for, is its metadata."""

    keepalive = KEEPALIVE

    def __init__(self, *, tells_usage: bool, request_id: str) -> None:
        super().__init__(_delta)
        self.tells_usage = tells_usage
        self._request_id = request_id
        self._stop_reason = ""
        self._has_text = False

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200."""
        del stream
        return list(UI_HEADERS)

    def read(self, piece: bytes) -> Iterator[Event]:
        """The events of `piece`; their parts are kept as they are read."""
        for event in self._reader.feed(piece):
            match event:
                case MessageStart():
                    self._out += _part("start", messageId=self._request_id) + _part("start-step")
                case MessageDelta(stop_reason=str(reason)):
                    self._stop_reason = reason
                case Text():
                    if not self._has_text:
                        self._has_text = True
                        self._out += _part("text-start", id=_TEXT_ID)
                    self._out += _delta(event.text)
                case _:
                    pass
            yield event

    def last(self, settlement: Settlement | None) -> bytes:
        """The end of the text and of the message."""
        end: dict[str, Any] = {"finishReason": _FINISH_REASONS.get(self._stop_reason, "other")}
        if settlement is not None:
            end["messageMetadata"] = end_of(settlement, self._request_id)
        return self._text_end() + _part("finish-step") + _part("finish", **end) + _DONE

    def failed(self, error: Exception, scope: Scope) -> bytes:
        """The end of the text, and `error`."""
        problem = encode(problem_of(error, scope).body).decode()
        return self._text_end() + _part("error", errorText=problem) + _DONE

    def _text_end(self) -> bytes:
        return _part("text-end", id=_TEXT_ID) if self._has_text else b""


def _delta(text: str) -> bytes:
    return _DELTA + encode(text) + b"}\n\n" if text else b""


def _part(kind: str, **fields: Any) -> bytes:
    return b"data: " + encode({"type": kind, **fields}) + b"\n\n"
