"""The record of a running request: the relay writes it, and the usage middleware settles from it at the end.

Plain assignments, no I/O: it is updated once per piece of text. The defaults bill nothing but the request itself. The
relayed text and the way to count the prompt are kept while they may be needed, and neither stored nor logged.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from metering.journal.records import Outcome
from metering.pricing.price import STANDARD, Modifiers
from metering.pricing.tokens import ReportedUsage

MAX_TEXT_CHARS = 2_000_000
"""The longest answer whose text is kept and counted: about four times the output limit of the largest model."""


@dataclass(slots=True)
class HiddenThinking:
    """Thinking that the provider generates, charges for, and does not send: its blocks open, and close without text.

    `seconds`: of the blocks that closed. `open_s`: when the open one began, and `open_chars`: the characters before it.
    `estimated_tokens`: the provider's own running estimate, where it sends one. `budget_tokens`: of the request.
    """

    budget_tokens: int | None = None
    estimated_tokens: int = 0
    seconds: float = 0.0
    blocks: int = 0
    open_s: float | None = None
    open_chars: int = 0


@dataclass(slots=True)
class UsageRecorder:
    """One per request, on the ASGI scope as `naka.recorder`.

    `granted_output_tokens`: the most output of the answer. `deadline_ms`: when the stream is ended (milliseconds since
    1970). `finished`: the provider's final usage is known. `fault`: the code of the provider's error. `began_s` (of the
    request), `answered_s`, `first_text_s` and `ended_s` (of the answer) are seconds of the monotonic clock. `asked`:
    the modifiers that the request asks for.

    `unanswered`: the provider has the request, and has neither begun to answer nor refused. Its input counts, as
    measured by `count_prompt` (None: nobody can count it), for one inference: at most `most_prompt_tokens`, which is at
    most what was held, so that no window exceeds its limit.
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
    most_prompt_tokens: int = 0
    count_prompt: Callable[[], Awaitable[int]] | None = field(default=None, repr=False)
    asked: Modifiers = STANDARD
    answered_s: float = 0.0
    hidden_thinking: HiddenThinking = field(default_factory=HiddenThinking)

    @property
    def modifiers(self) -> Modifiers:
        """The modifiers of the price: by the usage, or by the request while there is no usage."""
        if self.started is None:
            return self.asked
        return Modifiers.of(self.started if self.latest is None else self.started.then(self.latest))

    def sent(self) -> None:
        """Notes that the request was written to the connection: the provider may work on it."""
        self.unanswered = True

    def refused(self) -> None:
        """Notes that the provider refused the request."""
        self.unanswered = False

    def answered(self, usage: ReportedUsage) -> None:
        """Notes that the answer begins; its usage has every count of the input."""
        self.started = usage
        self.answered_s = time.monotonic()
        self.unanswered = False
        self.count_prompt = None

    def took(self, text: str) -> None:
        """Adds a piece of generated text. Empty pieces take no memory."""
        if text:
            self.output_chars += len(text)
            self.pieces.append(text)

    def thinking_opened(self, at_s: float) -> None:
        """Notes that a block of thinking opens. Until a piece of its text is taken, it is hidden."""
        hidden = self.hidden_thinking
        hidden.open_s, hidden.open_chars = at_s, self.output_chars

    def thinking_estimated(self, tokens: int) -> None:
        """Adds an increment of the provider's estimate of the hidden thinking (`thinking_delta.estimated_tokens`)."""
        self.hidden_thinking.estimated_tokens += tokens

    def thinking_closed(self, at_s: float) -> None:
        """Notes that the block closes. Nothing is noted if it was not open, or was shown."""
        hidden = self.hidden_thinking
        if hidden.open_s is not None and hidden.open_chars == self.output_chars:
            hidden.seconds = self.hidden_s(at_s)
            hidden.blocks += 1
        hidden.open_s = None

    def hidden_s(self, now_s: float) -> float:
        """The seconds of hidden thinking until `now_s`."""
        hidden = self.hidden_thinking
        if hidden.open_s is None or hidden.open_chars != self.output_chars:
            return hidden.seconds
        return hidden.seconds + max(0.0, now_s - hidden.open_s)

    @property
    def hid_thinking(self) -> bool:
        """Whether a block of thinking was not shown, or is open and not shown yet."""
        hidden = self.hidden_thinking
        return hidden.blocks > 0 or (hidden.open_s is not None and hidden.open_chars == self.output_chars)

    @property
    def wrote_nothing(self) -> bool:
        """Whether the model generated nothing, as far as the stream tells."""
        hidden = self.hidden_thinking
        return self.output_chars == 0 and not hidden.blocks and hidden.open_s is None

    def text(self) -> str | None:
        """The generated text, thinking included; None if not all of it was kept."""
        text = "".join(self.pieces)
        return text if len(text) == self.output_chars else None

    def forget_text(self) -> None:
        """Frees the text, once it is counted or too long to be."""
        self.pieces.clear()
