"""The records that the journal writes: an open request, and its settlement. Pure."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from core.clock import to_datetime
from metering.counts import UsageCounts
from metering.pricing.answer_cost import IterationUsage
from metering.pricing.tokens import NO_USAGE, Usage


class Outcome(StrEnum):
    """The end of a request."""

    COMPLETED = "completed"  # message_stop was seen
    REFUSED = "refused"  # the model refused and wrote nothing: no tokens
    NOT_SENT = "not_sent"  # the provider did not receive it
    UPSTREAM_REFUSED = "upstream_refused"  # the provider's error before message_start, or no answer
    UPSTREAM_BROKE = "upstream_broke"  # the stream broke, or sent an error, after message_start
    CLIENT_GONE = "client_gone"  # the client disconnected
    DEADLINE = "deadline"  # ended by us at its deadline
    SHUTDOWN = "shutdown"  # ended by us: the process stops
    LOST = "lost"  # its process died: settled from its last heartbeat


ERRORS = frozenset(Outcome) - {Outcome.COMPLETED, Outcome.REFUSED, Outcome.CLIENT_GONE}
"""Outcomes that reports count as errors: the answer is incomplete, and not because the client left."""
ERROR_OUTCOMES = sorted(outcome.value for outcome in ERRORS)
"""`ERRORS` as a parameter of statements."""


class Source(StrEnum):
    """The source of the counts, best first."""

    FINAL = "final"  # the provider's own final usage
    COUNTED = "counted"  # the relayed text, counted by the provider
    ESTIMATED = "estimated"  # estimated from the length of the relayed text; an unanswered prompt, counted or bounded


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A granted request to be opened, in the order of `open.sql`. Times in milliseconds since 1970.

    `tags`: a JSON object of all of its tags. `tag_keys`: those that are added up, joined by commas.
    """

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
    held_web_searches: int = 0
    tags: str | None = None
    tag_keys: str | None = None

    @property
    def opened_at(self) -> datetime:
        """The moment of the grant."""
        return to_datetime(self.opened_ms)

    @property
    def deadline_at(self) -> datetime:
        """The moment at which this process ends the request."""
        return to_datetime(self.deadline_ms)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The measured usage of a request that ended, in the order of `settle.sql`. Each counts as one request.

    `model_known` False: the price list lacks a model or a modifier of it, or an iteration has an unknown type.
    `modifiers`: of its price, as stored (`metering.pricing.price.Modifiers`). `others`: what other models did for it.
    """

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
    modifiers: str | None = None
    others: tuple[IterationUsage, ...] = ()

    @property
    def counts(self) -> UsageCounts:
        """The nine counts of the request's own model: those of its row."""
        return UsageCounts(*(self.requests, *self.usage.values, self.cost_nano_usd))

    @property
    def total(self) -> UsageCounts:
        """The nine counts that this request adds to the meters and the windows, other models included."""
        return sum((other.counts for other in self.others), self.counts)
