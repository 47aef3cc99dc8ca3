"""What is learnt of a request while it runs. The relay writes, the middleware settles what stands here at the end.

Plain assignments, no I/O: it is touched once per piece of text. What the relay never came to say stays at its
default, and the defaults bill nothing but the request itself. The relayed text is kept here for as long as it may have
to be counted, and so is the way to count the prompt; metering.settlement.token_counting forgets both. Neither is
stored or logged.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from metering.journal.records import Outcome
from metering.pricing.tokens import ReportedUsage

MAX_TEXT_CHARS = 2_000_000
"""A longer answer is not kept, and so not counted: some four times what the largest model may write."""


@dataclass(slots=True)
class UsageRecorder:
    """One per request, on the ASGI scope as `naka.recorder`.

    `granted_output_tokens` is what the answer may have at most; `deadline_ms` when every stream ends (milliseconds
    since 1970). The rest is filled in by the relay; `finished` means that the provider's final usage is known, `fault`
    is the code of what the provider did wrong. `began_s` (of the request), `first_text_s` and `ended_s` (of the answer)
    are moments of the steady clock, in seconds.

    `unanswered`: the request is with the provider, which has neither begun to answer nor refused. Its input counts:
    as measured by `count_prompt` (None where there is nobody to ask), at most `held_prompt_tokens`.
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
        """The request is handed to the connection: the provider may work on it from now on."""
        self.unanswered = True

    def refused(self) -> None:
        """The provider said that it did not do it."""
        self.unanswered = False

    def answered(self, usage: ReportedUsage) -> None:
        """The answer begins, and with it every count of the input is known."""
        self.started = usage
        self.unanswered = False
        self.count_prompt = None

    def took(self, text: str) -> None:
        """One more piece was generated. An empty one leaves nothing behind, however many come."""
        if text:
            self.output_chars += len(text)
            self.pieces.append(text)

    def text(self) -> str | None:
        """All that was generated for us to see, thinking too; None when not all of it was kept."""
        text = "".join(self.pieces)
        return text if len(text) == self.output_chars else None

    def forget_text(self) -> None:
        """Frees the text: it is counted, or too long to be."""
        self.pieces.clear()
