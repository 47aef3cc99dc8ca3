"""What is learnt of a request while it runs. The relay writes, the middleware settles what stands here at the end.

Plain assignments, no I/O: it is touched once per piece of text. What the relay never came to say stays at its
default, and the defaults bill nothing.
"""

from dataclasses import dataclass

from metering.records import Outcome
from metering.tokens import ReportedUsage


@dataclass(slots=True)
class UsageRecorder:
    """One per request, on the ASGI scope as `naka.recorder`.

    `granted_output_tokens` is what the answer may have at most; `deadline_ms` when every stream ends (milliseconds
    since 1970). The rest is filled in by the relay.
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
