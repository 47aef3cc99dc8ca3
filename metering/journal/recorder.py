"""The record of a running request: the relay writes it, and the usage middleware settles from it at the end.

Plain assignments, no I/O: it is updated once per piece of text. The defaults bill nothing but the request itself. The
relayed text and the way to count the prompt are kept while they may be needed, and neither stored nor logged.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from metering.journal.records import Outcome
from metering.pricing.tokens import ReportedUsage

MAX_TEXT_CHARS = 2_000_000
"""The longest answer whose text is kept and counted: about four times the output limit of the largest model."""


@dataclass(slots=True)
class UsageRecorder:
    """One per request, on the ASGI scope as `naka.recorder`.

    `granted_output_tokens`: the most output of the answer. `deadline_ms`: when the stream is ended (milliseconds since
    1970). `finished`: the provider's final usage is known. `fault`: the code of the provider's error. `began_s` (of the
    request), `first_text_s` and `ended_s` (of the answer) are seconds of the monotonic clock.

    `unanswered`: the provider has the request, and has neither begun to answer nor refused. Its input counts, as
    measured by `count_prompt` (None: nobody can count it), and at most `held_prompt_tokens`.
    """

    granted_output_tokens: int
    deadline_ms: int
    outcome: Outcome = Outcome.NOT_SENT
    started: ReportedUsage | None = None
    latest: ReportedUsage | None = None
    finished: bool = False
    output_chars: int = 0
    model: str | None = None
    stop_reason: str | None = None
    upstream_request_id: str | None = None
    upstream_message_id: str | None = None
    fault: str | None = None
    began_s: float = 0.0
    first_text_s: float | None = None
    ended_s: float = 0.0
    pieces: list[str] = field(default_factory=list, repr=False)
    unanswered: bool = False
    held_prompt_tokens: int = 0
    count_prompt: Callable[[], Awaitable[int]] | None = field(default=None, repr=False)

    def sent(self) -> None:
        """Notes that the request was written to the connection: the provider may work on it."""
        self.unanswered = True

    def refused(self) -> None:
        """Notes that the provider refused the request."""
        self.unanswered = False

    def answered(self, usage: ReportedUsage) -> None:
        """Notes that the answer begins; its usage has every count of the input."""
        self.started = usage
        self.unanswered = False
        self.count_prompt = None

    def took(self, text: str) -> None:
        """Adds a piece of generated text. Empty pieces take no memory."""
        if text:
            self.output_chars += len(text)
            self.pieces.append(text)

    def text(self) -> str | None:
        """The generated text, thinking included; None if not all of it was kept."""
        text = "".join(self.pieces)
        return text if len(text) == self.output_chars else None

    def forget_text(self) -> None:
        """Frees the text, once it is counted or too long to be."""
        self.pieces.clear()
