"""Corrections and credits: what an admin decides, as entries on top of what was measured.

A correction is of one settled request, a credit of a user's usage in a period. Each runs in the caller's transaction,
with its audit entry in it, whatever period it concerns: one that is over is priced again by whoever bills it. Storage
never clamps: a credit may take a window below zero. Postgres away: the driver's error, and nothing was written.

With a `reference`, unique in the tenant, a call may be repeated: the first one's entry is the answer.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import offset_ms, to_ms
from core.errors import Conflict, Invalid
from core.ids import uuid7
from core.tenancy.audit import Actor, record
from core.tenancy.models import User
from metering.adjustments.credit_period import resolve_credit_period
from metering.adjustments.errors import no_request
from metering.adjustments.ledger import append, entries_of, entry_by_reference, lock_request, retry_collisions
from metering.adjustments.measurement import COUNT_NAMES, Counts, Entry, Measurement, Named, effective
from metering.journal.epoch import Fetch, fetch_in
from metering.pricing.price import PriceBook
from metering.pricing.price_list import read_prices
from metering.pricing.tokens import NO_USAGE
from metering.quota.windows import Calendar

MAX_AMOUNT = 10**12
MAX_REASON = 500
_MAX_COST_NANO_USD = 10**15
"""A million dollars: a correction that comes to more is a slip of the pen, and would soon be no bigint."""
NOBODYS_KEY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Amounts:
    """What is asked for: requests and tokens, and nano-USD where the price list is not to say it (None)."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cost_nano_usd: int | None = None

    @property
    def counts(self) -> Counts:
        """As counts; a cost that is not given is 0."""
        return Counts(*(getattr(self, name) or 0 for name in COUNT_NAMES))


@dataclass(frozen=True, slots=True)
class Written:
    """The entry's row; `is_new` False: its reference was there before, with the same content."""

    entry: Named
    is_new: bool


async def correct(
    session: AsyncSession,
    actor: Actor,
    tenant_id: UUID,
    request_id: UUID,
    deltas: Amounts,
    *,
    reason: str,
    reference: str | None = None,
) -> Written:
    """Corrects the usage of a settled request by signed differences, in tokens or in money, not in both.

    Tokens change the cost by what the request's own price says: of all that it counts for after, less of all before.
    Raises NotFound for the request; Invalid when it is not settled, when a count would be taken below 0, and for
    amounts that make no sense; Conflict when the reference stands for something else.
    """
    _check(deltas, reason)
    if deltas.cost_nano_usd is not None and deltas.counts.usage != NO_USAGE:
        raise Invalid("a correction is in tokens, priced by the list, or in cost_nano_usd: not in both")
    fetch = fetch_in(session)
    same = {"kind": "correction", "request_id": request_id, "reason": reason}

    async def work() -> tuple[Written, Counts]:
        row = await lock_request(fetch, tenant_id, request_id)
        if row is None:
            raise await no_request(session, request_id, tenant_id)
        found = None if reference is None else await entry_by_reference(fetch, tenant_id, reference)
        if found is not None:
            return _repeated(found, same, deltas, deltas.counts), Counts()
        if row["state"] != "settled":
            raise Invalid("only a settled request can be corrected")
        known = effective(row, await entries_of(fetch, tenant_id, request_id))
        counts = await _priced(session, row, known, deltas)
        _require_enough(known.counts, counts)
        entry = _correction(row, known, counts, actor, reason, reference)
        return await _write(fetch, entry, same, deltas), known.counts

    written, before = await retry_collisions(session.begin_nested, work)
    if written.is_new:
        after = before + Counts.of(written.entry)
        _audit(session, actor, "usage.correct", written.entry, before=asdict(before), after=asdict(after))
    return written


async def credit(  # noqa: PLR0913 - all that a credit says
    session: AsyncSession,
    actor: Actor,
    user: User,
    amounts: Amounts,
    *,
    calendar: Calendar,
    period_id: str | None = None,
    day: date | None = None,
    reason: str,
    reference: str | None = None,
) -> Written:
    """Takes positive amounts off a user's usage, of the tenant's current period unless one is named.

    Named may be a month, and a period of the tenant's that was scheduled or counted in. Without `day` it counts on the
    day of the period that is nearest to today. Tokens and money are apart here: there is no request whose price could
    tell one from the other. Raises Invalid for amounts, a period or a day that make no sense, Conflict when the
    reference stands for something else. A repeated call that names no period or day means the first one's, so that it
    may cross midnight.
    """
    _check(amounts, reason)
    if min(amounts.counts.values) < 0:
        raise Invalid("a credit takes off: its amounts are positive")
    fetch = fetch_in(session)
    same: dict[str, Any] = {"kind": "credit", "user_id": user.id, "reason": reason}
    same |= {} if period_id is None else {"period_id": period_id}
    same |= {} if day is None else {"day": day}
    (now,) = await fetch("SELECT clock_timestamp() AS at")
    at_ms = to_ms(now["at"]) + offset_ms()
    period_id, day = await resolve_credit_period(fetch, user.tenant_id, period_id, day, at_ms, calendar)
    entry = Entry(
        tenant_id=user.tenant_id,
        id=uuid7(),
        kind="credit",
        user_id=user.id,
        key_id=NOBODYS_KEY,
        model="",
        period_id=period_id,
        day=day,
        actor=actor.name,
        actor_key_id=actor.key_id,
        reason=reason,
        reference=reference,
        counts=-amounts.counts,
    )
    written = await retry_collisions(session.begin_nested, lambda: _write(fetch, entry, same, amounts))
    if written.is_new:
        _audit(session, actor, "usage.credit", written.entry)
    return written


def _check(amounts: Amounts, reason: str) -> None:
    if not 1 <= len(reason) <= MAX_REASON:
        raise Invalid(f"a reason of 1 to {MAX_REASON} characters is needed")
    if not any(amounts.counts.values):
        raise Invalid("all amounts are 0: nothing would change")
    if max(map(abs, amounts.counts.values)) > MAX_AMOUNT:
        raise Invalid(f"an amount is at most {MAX_AMOUNT}")


async def _priced(session: AsyncSession, row: Named, known: Measurement, deltas: Amounts) -> Counts:
    """The differences with the cost that follows from them, unless it was given."""
    counts = deltas.counts
    if counts.usage == NO_USAGE:
        return counts
    book = PriceBook(await read_prices(session))
    if row["price_id"] is None:
        raise Invalid("the request has no price: correct its cost_nano_usd")
    price, _ = book.settle(known.model, to_ms(row["opened_at"]), book.by_id(row["price_id"]))
    before = known.counts.usage
    cost = price.cost_nano_usd(before + counts.usage) - price.cost_nano_usd(before)
    if abs(cost) > _MAX_COST_NANO_USD:
        raise Invalid("the cost would be beyond anything that a request can cost")
    return replace(counts, cost_nano_usd=cost)


def _require_enough(known: Counts, change: Counts) -> None:
    """Raises Invalid when a count would be taken below 0; one that is there already may be raised towards it."""
    for name in COUNT_NAMES:
        if getattr(change, name) < 0 and getattr(known, name) + getattr(change, name) < 0:
            raise Invalid(f"{name} is {getattr(known, name)} and would fall below 0")


def _correction(
    row: Named, known: Measurement, counts: Counts, actor: Actor, reason: str, reference: str | None
) -> Entry:
    return Entry(
        tenant_id=row["tenant_id"],
        id=uuid7(),
        kind="correction",
        request_id=row["id"],
        user_id=row["user_id"],
        key_id=row["key_id"],
        model=known.model or row["model"],
        period_id=row["period_id"],
        day=row["day"],
        actor=actor.name,
        actor_key_id=actor.key_id,
        reason=reason,
        reference=reference,
        counts=counts,
    )


async def _write(fetch: Fetch, entry: Entry, same: Mapping[str, Any], asked: Amounts) -> Written:
    """Appends the entry; or answers the one that has its reference. Raises Conflict when that says something else."""
    appended = await append(fetch, [entry])
    if appended:
        return Written(appended[0], is_new=True)
    found = await entry_by_reference(fetch, entry.tenant_id, entry.reference or "")
    if found is None:
        raise Conflict("the reference is in use")
    return _repeated(found, same, asked, entry.counts)


def _repeated(found: Named, same: Mapping[str, Any], asked: Amounts, counts: Counts) -> Written:
    """The entry of a reference, if it says the same. A cost that was not asked for was the list's to say."""
    said = Counts.of(found)
    if asked.cost_nano_usd is None:
        said, counts = replace(said, cost_nano_usd=0), replace(counts, cost_nano_usd=0)
    if said != counts or any(found[name] != value for name, value in same.items()):
        raise Conflict("the reference stands for another entry")
    return Written(found, is_new=False)


def _audit(session: AsyncSession, actor: Actor, action: str, entry: Named, **states: dict[str, Any]) -> None:
    """Says who did it, in the same transaction. `before` and `after` are what the request counts for."""
    request_id = entry["request_id"]
    record(
        session,
        actor,
        action,
        tenant_id=entry["tenant_id"],
        target=f"user:{entry['user_id']}" if request_id is None else f"request:{request_id}",
        before=states.get("before"),
        after={
            **(states.get("after") or {}),
            "entry": str(entry["id"]),
            "period": entry["period_id"],
            "change": asdict(Counts.of(entry)),
            "reason": entry["reason"],
            "reference": entry["reference"],
        },
    )
