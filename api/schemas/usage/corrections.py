"""Shapes of corrections, credits and the entries that they write."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints

from api.schemas.billing.decisions import Reason
from api.schemas.fields import Body, Text, example
from api.schemas.moments import Day
from api.schemas.usage.counts import Counts, ListQuery
from metering.adjustments.corrections import MAX_AMOUNT, NO_KEY_ID
from metering.counts import NamedRow

Kind = Literal["revision", "correction", "credit", "repair", "iteration"]
Delta = Annotated[int, Field(strict=True, ge=-MAX_AMOUNT, le=MAX_AMOUNT)]
Amount = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]
_PERIOD = r"^20[0-9]{2}-(?:0[1-9]|1[0-2])(?:-[A-Za-z0-9-]{1,60})?(?:~[1-9][0-9]{0,5})?$"
Period = Annotated[str, StringConstraints(pattern=_PERIOD)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery(ListQuery):
    """A list of entries, by tenant and user."""

    kind: Kind | None = None


class Deltas(Body):
    """Signed differences of what a request counts for.

    Tokens and searches are priced by the list, or else `cost_nano_usd` alone. Thinking tokens stay as reported: correct
    the output that they are part of.
    """

    requests: Delta = 0
    input_tokens: Delta = 0
    output_tokens: Delta = 0
    cache_read_tokens: Delta = 0
    cache_write_5m_tokens: Delta = 0
    cache_write_1h_tokens: Delta = 0
    web_searches: Delta = 0
    cost_nano_usd: Delta | None = None


class NewCorrection(Body):
    """Of a settled request. With `reference`, which a tenant has once, the call may be repeated."""

    model_config = example(deltas={"output_tokens": -120}, reason="the answer was cut", reference="ticket-4711")

    deltas: Deltas
    reason: Reason
    reference: Text | None = None


class CreditAmounts(Body):
    """Amounts taken off, each by itself: tokens and searches do not change the cost here."""

    requests: Amount = 0
    input_tokens: Amount = 0
    output_tokens: Amount = 0
    cache_read_tokens: Amount = 0
    cache_write_5m_tokens: Amount = 0
    cache_write_1h_tokens: Amount = 0
    web_searches: Amount = 0
    cost_nano_usd: Amount = 0


class NewCredit(Body):
    """To a user, in the current period unless one is named; `day` lies in it (default: the day nearest to today)."""

    model_config = example(
        amounts={"output_tokens": 5_000, "cost_nano_usd": 75_000_000}, reason="goodwill", reference="ticket-4712"
    )

    amounts: CreditAmounts
    period: Period | None = None
    day: Day | None = None
    reason: Reason
    reference: Text | None = None


class EntryItem(Counts):
    """One entry: signed differences. `key_id` and `model` are null for a credit, `request_id` too.

    Of a `revision`, `source` and `outcome` are those of the better measurement; null where it only changes
    the counts of another model than the one that answered. An `iteration` is what another model did for a request.
    """

    id: UUID
    tenant_id: UUID
    kind: Kind
    request_id: UUID | None
    user_id: UUID | None
    key_id: UUID | None
    model: str | None
    period: str
    day: date | None
    source: str | None
    outcome: str | None
    actor: str
    actor_key_id: UUID | None
    reason: str
    reference: str | None
    created_at: datetime

    @classmethod
    def of(cls, entry: NamedRow) -> Self:
        """The shape of a row."""
        shown: dict[str, Any] = {name: entry[name] for name in cls.model_fields if name != "period"}
        shown |= {"period": entry["period_id"], "model": entry["model"] or None}
        if shown["key_id"] == NO_KEY_ID:
            shown["key_id"] = None
        return cls.model_validate(shown)
