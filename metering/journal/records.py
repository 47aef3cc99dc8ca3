"""What the journal writes: a request as it is opened, and as it is settled. Pure."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from uuid import UUID

from metering.pricing.tokens import NO_USAGE, Usage


class Outcome(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"  # message_stop was seen
    REFUSED = "refused"  # the model refused and wrote nothing: no tokens
    NOT_SENT = "not_sent"  # the provider never heard of it
    UPSTREAM_REFUSED = "upstream_refused"  # an error before message_start: the provider's, or no answer at all
    UPSTREAM_BROKE = "upstream_broke"  # it broke off, or sent an error, after message_start
    CLIENT_GONE = "client_gone"  # the client left
    DEADLINE = "deadline"  # we ended it: it ran into its deadline
    SHUTDOWN = "shutdown"  # we ended it: this process stops
    LOST = "lost"  # its process died: settled from what its last heartbeat said


ERRORS = frozenset(
    {
        Outcome.NOT_SENT,
        Outcome.UPSTREAM_REFUSED,
        Outcome.UPSTREAM_BROKE,
        Outcome.DEADLINE,
        Outcome.SHUTDOWN,
        Outcome.LOST,
    }
)
"""What reports count as an error: the client got less than an answer, by the provider's fault or ours."""


class Source(StrEnum):
    """How the counts are known, best first."""

    FINAL = "final"  # the provider's own final usage
    COUNTED = "counted"  # the relayed text, counted by the provider
    ESTIMATED = "estimated"  # the relayed text, by its length; an unanswered prompt, counted or bounded


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A granted request, as the journal opens it. Times in milliseconds since 1970."""

    tenant_id: UUID
    id: UUID
    user_id: UUID
    key_id: UUID
    epoch: int
    price_id: UUID
    plan_version: str | None
    period_id: str
    day: date
    opened_ms: int
    deadline_ms: int
    model: str
    held_prompt_tokens: int
    held_output_tokens: int
    held_nano_usd: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a request came to. It counts as one from its open on, however it ended."""

    tenant_id: UUID
    id: UUID
    user_id: UUID
    outcome: Outcome
    source: Source
    model: str
    model_known: bool
    requests: int = 1
    usage: Usage = NO_USAGE
    cost_nano_usd: int = 0
    stop_reason: str | None = None
    upstream_request_id: str | None = None
    upstream_message_id: str | None = None
    output_chars: int = 0
