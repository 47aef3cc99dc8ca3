"""Self-service: what the key's own user has used, and where it stands with its limits."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.auth.access import Reader, RuntimeDep
from api.schemas.moments import Day
from core.clock import now_ms, to_datetime
from core.errors import Invalid
from core.resilience.deadline import within
from metering.admission.limit_status import LimitStatus
from metering.models import COUNT_COLUMNS
from metering.quota.windows import WindowKind
from metering.reports.requests import own_usage

router = APIRouter(prefix="/v1", tags=["usage"])
MAX_DAYS = 400


class Counts(BaseModel):
    """U: what was used. The token classes are disjoint; the cost is the provider's, in nano-USD."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cost_nano_usd: int = 0


class DayUsage(Counts):
    """One day of the operator, one model."""

    day: date
    model: str


class UsageAnswer(BaseModel):
    """The sum, and what it is made of."""

    totals: Counts
    days: list[DayUsage]


class LimitWindow(BaseModel):
    """One limit: spend is in micro-USD, a charge (what a plan's ceiling bounds) in paise before tax.

    `held` is taken by requests that still run.
    """

    scope: Literal["user", "tenant"]
    meter: str
    window: WindowKind
    limit: int
    used: int
    held: int
    remaining: int
    resets_at: datetime


class Concurrency(BaseModel):
    """Requests at a time: `limit` null for no bound."""

    limit: int | None
    active: int


class LimitsAnswer(BaseModel):
    """Where the user stands."""

    windows: list[LimitWindow]
    concurrency: Concurrency


def counts(row: Any) -> dict[str, int]:
    """The seven counts of a row, by the names of the API."""
    return {name: int(getattr(row, name)) for name in COUNT_COLUMNS}


def totals(rows: Iterable[Any]) -> Counts:
    """The sum of rows."""
    sums = dict.fromkeys(COUNT_COLUMNS, 0)
    for row in rows:
        for name, value in counts(row).items():
            sums[name] += value
    return Counts(**sums)


def date_range(runtime: RuntimeDep, first: date | None, last: date | None) -> tuple[date, date]:
    """From `first` (default: the first of this month) to `last` (default: today). Raises Invalid."""
    today = runtime.calendar.date_of(now_ms())
    last = last or today
    first = first or min(last, today).replace(day=1)
    if first > last or (last - first).days > MAX_DAYS:
        raise Invalid(f"`from` is not after `to`, and at most {MAX_DAYS} days before it")
    return first, last


FromDay = Annotated[Day | None, Query(alias="from", description="First day, of the operator's time zone")]
ToDay = Annotated[Day | None, Query(alias="to", description="Last day, included")]


@router.get("/usage")
async def usage(principal: Reader, runtime: RuntimeDep, first: FromDay = None, last: ToDay = None) -> UsageAnswer:
    """What the key's user has used, by day and model. Without a range: this month."""
    first, last = date_range(runtime, first, last)
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        rows = await own_usage(session, principal.tenant_id, principal.user_id, first=first, last=last)
    return UsageAnswer(
        totals=totals(rows), days=[DayUsage(day=row.day, model=row.model, **counts(row)) for row in rows]
    )


@router.get("/limits")
async def limits(principal: Reader, runtime: RuntimeDep) -> LimitsAnswer:
    """Each limit of the key's user and of its tenant: used, held by running requests, left, and when it turns."""
    async with within(runtime.settings.store_deadline_s):
        standing = await runtime.standings.of(principal.tenant_id, principal.user_id)
    return LimitsAnswer(
        windows=[_window(limit) for limit in standing.limits],
        concurrency=Concurrency(limit=standing.concurrency, active=standing.active),
    )


def _window(standing: LimitStatus) -> LimitWindow:
    return LimitWindow(
        scope=standing.limit.scope.value,
        meter=standing.limit.meter.value,
        window=standing.limit.window,
        limit=standing.limit.limit,
        used=standing.used,
        held=standing.held,
        remaining=standing.remaining,
        resets_at=to_datetime(standing.resets_ms),
    )
