"""Reads one answer of the provider, piece by piece: usage to the recorder, and what the client may receive.

Runs inside the event loop's read of the upstream socket, so it neither waits nor fails: what is wrong with the answer
is in `fault`.
"""

import time

from api.gateway.codec import Codec
from api.gateway.stream_errors import UpstreamFault, fault, fault_of_event
from api.gateway.upstream.events import (
    BadStream,
    Event,
    MessageDelta,
    MessageStart,
    MessageStop,
    Text,
    Thinking,
    ThinkingClosed,
    ThinkingOpened,
    UpstreamErrorEvent,
)
from core.spans import UNTRACED, Span
from metering.journal.recorder import MAX_TEXT_CHARS, UsageRecorder
from metering.journal.records import Outcome


class AnswerReader:
    """One answer. `has_ended`: `message_stop` arrived; `fault`: what ended the answer early."""

    __slots__ = ("_codec", "_recorder", "fault", "has_ended", "span")

    def __init__(self, codec: Codec, recorder: UsageRecorder) -> None:
        self._codec = codec
        self._recorder = recorder
        self.has_ended = False
        self.fault: BadStream | UpstreamFault | None = None
        self.span: Span = UNTRACED

    @property
    def is_decided(self) -> bool:
        """Whether the end is known, so that what follows it does not matter."""
        return self.has_ended or self.fault is not None

    def take(self, piece: bytes) -> bytes:
        """Returns what the client may receive of `piece`, and records all else, including a fault that follows it."""
        if self.is_decided:
            return b""
        recorder = self._recorder
        one = None if recorder.first_text_s is None else self._codec.one_text(piece)
        if one is None:
            out = self._read(piece)
        else:
            text, out = one
            recorder.took(text)
        if recorder.output_chars > MAX_TEXT_CHARS:
            recorder.forget_text()
        return out

    def _note_first_text(self) -> None:
        if self._recorder.started is None:
            raise fault("upstream_broken")  # text before message_start: its input tokens are unknown
        self._recorder.first_text_s = time.monotonic()
        self.span.event("first_token")

    def _read(self, piece: bytes) -> bytes:
        recorder = self._recorder
        try:
            for event in self._codec.read(piece):
                if type(event) is Text:
                    if recorder.first_text_s is None:
                        self._note_first_text()
                    recorder.took(event.text)
                else:
                    self._note_event(event)
                    if self.has_ended:
                        break
        except (BadStream, UpstreamFault) as error:
            self.fault = error
        return self._codec.taken()

    def _note_event(self, event: Event) -> None:
        recorder = self._recorder
        match event:
            case Thinking() | ThinkingOpened() | ThinkingClosed():
                self._note_thinking(event)
            case MessageStart():
                recorder.outcome = Outcome.UPSTREAM_BROKE
                recorder.answered(event.usage)
                recorder.model = event.model
                recorder.upstream_message_id = event.id
            case MessageDelta():
                recorder.latest = event.usage if recorder.latest is None else recorder.latest.then(event.usage)
                if event.stop_reason is not None:
                    recorder.stop_reason = event.stop_reason
                    self._conclude()
            case MessageStop():
                if recorder.started is None:
                    raise fault("upstream_broken")
                self.has_ended = True
                recorder.outcome = Outcome.COMPLETED
                self._conclude()
            case UpstreamErrorEvent():
                recorder.refused()
                raise fault_of_event(event.type)
            case Text():
                pass  # recorded where it is framed

    def _note_thinking(self, event: Thinking | ThinkingOpened | ThinkingClosed) -> None:
        recorder = self._recorder
        match event:
            case Thinking():
                recorder.took(event.text)
                recorder.thinking_estimated(event.estimated_tokens)
            case ThinkingOpened():
                recorder.thinking_opened(time.monotonic())
            case ThinkingClosed():
                recorder.thinking_closed(time.monotonic())

    def _conclude(self) -> None:
        """Records the stop reason. A refusal without text stays a refusal, whatever fails afterwards."""
        recorder = self._recorder
        recorder.finished = recorder.latest is not None and recorder.latest.output_tokens is not None
        if recorder.stop_reason == "refusal" and recorder.wrote_nothing:
            recorder.outcome = Outcome.REFUSED
            recorder.refused()
