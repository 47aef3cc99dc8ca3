"""Tracing spans, named by each layer; `api.observability.tracing` implements them with OpenTelemetry.

Not traced: `span` costs one look-up and does nothing, and OpenTelemetry is not imported. A span carries a name only, so
no text, key or tenant name can reach a trace.
"""

from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Self


class Span:
    """A running step, untraced. It ends with its block, or earlier with `end`; ending twice is harmless."""

    def __enter__(self) -> Self:
        """Returns itself: the span was started when it was made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the span, with the class name of an error."""

    def event(self, name: str) -> None:
        """Adds an event."""

    def end(self) -> None:
        """Ends the span."""


UNTRACED = Span()
START_SPAN: ContextVar[Callable[[str], Span] | None] = ContextVar("naka_start_span", default=None)
"""Starts a span of the request; set once per request and inherited by its tasks."""


def span(name: str) -> Span:
    """Starts a span of the current request."""
    start = START_SPAN.get()
    return UNTRACED if start is None else start(name)
