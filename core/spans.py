"""Where a request spends its time, for whoever traces it. Nobody traces: `span` costs one look and does nothing.

The layers name their steps; who keeps them (api.observability.tracing) is set once per request, and followed by the
tasks that the
request starts. A step says its name and nothing else, so no text, key or name of a tenant can get into a trace.
"""

from contextvars import ContextVar
from types import TracebackType
from typing import Protocol, Self


class Span(Protocol):
    """A step that runs. It ends with its block, or before, when it is told so; ending twice is no harm."""

    def __enter__(self) -> Self:
        """The step has begun when it was made."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends it; what broke it is kept by its class's name."""

    def event(self, name: str) -> None:
        """Something happened, now."""

    def end(self) -> None:
        """It is over."""


class Trace(Protocol):
    """A traced request."""

    def child(self, name: str) -> Span:
        """A step of it, begun."""


class _Untraced:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, name: str) -> None:
        pass

    def end(self) -> None:
        pass


UNTRACED: Span = _Untraced()
TRACE: ContextVar[Trace | None] = ContextVar("naka_trace", default=None)


def span(name: str) -> Span:
    """A step of the request that runs here."""
    trace = TRACE.get()
    return UNTRACED if trace is None else trace.child(name)
