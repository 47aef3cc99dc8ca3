"""The difference between metered routes: the request to the provider, and the form of the answer to the client.

The relay (`api.gateway.relay`) does everything else alike for all of them.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from api.gateway.upstream.client import UpstreamStream
from api.gateway.upstream.events import Event
from api.gateway.upstream.pool import Header
from api.gateway.upstream.prompts import Prompt
from metering.admission.admission import AdmissionRequest
from metering.journal.records import Settlement

CALL = "naka.call"
"""The scope key of a metered request's `Call`."""


class Codec(Protocol):
    """Turns one answer of the provider into what the client receives."""

    streams: bool
    """Whether the head goes out once the answer begins; otherwise with the whole answer."""

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200."""

    def one_text(self, piece: bytes) -> tuple[str, bytes] | None:
        """The text of a piece that is one delta of text, and what the client receives of it; None: `read` it."""

    def read(self, piece: bytes) -> Iterable[Event]:
        """The events that `piece` completes, in order. What they mean for the client is in `taken`. Raises BadStream.

        The caller stops at the end of the message.
        """

    def taken(self) -> bytes:
        """Returns the bytes for the client since the last call."""

    tells_usage: bool
    """Whether `last` needs the settlement."""

    def last(self, settlement: Settlement | None) -> bytes:
        """The last write of a complete answer, which waits for the settlement. None: it is not told, or not known."""

    def failed(self, error: Exception, scope: Scope) -> bytes | None:
        """The last write of a stream that failed after its head; None for a form without one: the connection is cut."""

    keepalive: bytes
    """The bytes that keep an idle stream open; empty for a form that has none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One metered request: its prompt, what to admit it for, and the codec of its answer."""

    prompt: Prompt
    admission: AdmissionRequest
    codec: Callable[[], Codec]
    thinking_budget: int | None = None
    """The most tokens of thinking, where the request says so."""
    prompt_once: int | None = None
    """The most tokens of the prompt in the first inference of its own model; None: what is held of all inferences."""
    user: str | None = None
    """The end user that the body names, as sent."""
    tags: tuple[tuple[str, str], ...] = ()
    """The tags of the body, as sent."""


@dataclass(frozen=True, slots=True)
class MeteredRoute:
    """A metered route: `read` makes the call of a body (raises InvalidBody and other NakaErrors), of `max_bytes`."""

    read: Callable[[Scope, bytes], Awaitable[Call]]
    max_bytes: int
