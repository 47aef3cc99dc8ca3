"""Corrections and credits: an admin's adjustments, as entries on top of measured usage.

Each runs in the caller's transaction and writes its audit entry there. The period may be over: billing then prices it
again. A credit may take a window below zero. A call with a `reference`, unique in the tenant, is idempotent: a
repetition returns the first call's entry. Postgres down: the driver's error, and nothing is written.
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
from metering.adjustments.measurement import Entry, Measurement, effective
from metering.counts import COUNT_COLUMNS, NamedRow, UsageCounts
from metering.journal.epoch import Fetch, fetch_in
from metering.pricing.price import Modifiers, PriceBook
from metering.pricing.price_list import read_prices
from metering.pricing.tokens import Usage
from metering.quota.windows import Calendar

MAX_AMOUNT = 10**12
MAX_REASON = 500
_MAX_COST_NANO_USD = 10**15
"""A million dollars: a larger correction is a mistake, and could overflow a bigint."""
NO_KEY_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Amounts:
    """The usage to adjust, and the nano-USD; None: the price list determines it.

    `thinking_tokens` cannot be adjusted: they are part of the output, and say what the provider reported.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    web_searches: int = 0
    cost_nano_usd: int | None = None

    @property
    def counts(self) -> UsageCounts:
        """The amounts as counts; a cost of None is 0."""
        return UsageCounts(*(getattr(self, name, 0) or 0 for name in COUNT_COLUMNS))


@dataclass(frozen=True, slots=True)
class Written:
    """The entry's row; `is_new` False: an entry with the same reference and content existed."""

    entry: NamedRow
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
    """Corrects the usage of a settled request by signed differences, in usage or in cost, not in both.

    What other models did for the request stays as it is. A change of tokens or searches changes the cost by the
    request's own price and modifiers: that of its usage after, less that of its usage before. Raises NotFound; Invalid
    if the request is not settled, a count would fall below 0, or the amounts are not valid; Conflict if the reference
    belongs to another entry.
    """
    _check(deltas, reason)
    if deltas.cost_nano_usd is not None and any(deltas.counts.usage):
        raise Invalid("correct the tokens and searches, whose cost follows, or cost_nano_usd: not both")
    fetch = fetch_in(session)
    same = {"kind": "correction", "request_id": request_id, "reason": reason}

    async def work() -> tuple[Written, UsageCounts]:
        row = await lock_request(fetch, tenant_id, request_id)
        if row is None:
            raise await no_request(session, request_id, tenant_id)
        found = None if reference is None else await entry_by_reference(fetch, tenant_id, reference)
        if found is not None:
            return _repeated(found, same, deltas, deltas.counts), UsageCounts()
        if row["state"] != "settled":
            raise Invalid("only a settled request can be corrected")
        known = effective(row, await entries_of(fetch, tenant_id, request_id))
        counts = await _priced(session, row, known, deltas)
        _require_enough(known.counts, counts)
        entry = Entry(
            tenant_id=tenant_id,
            id=uuid7(),
            kind="correction",
            request_id=request_id,
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
        return await _write(fetch, entry, same, deltas), known.total

    written, before = await retry_collisions(session.begin_nested, work)
    if written.is_new:
        after = before + UsageCounts.of(written.entry)
        _audit(session, actor, "usage.correct", written.entry, before=asdict(before), after=asdict(after))
    return written


async def credit(  # noqa: PLR0913 - the fields of a credit
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
    """Subtracts positive amounts from a user's usage, in `period_id` or the tenant's current period.

    The period is a month, or one that was scheduled for the tenant or has usage. Without `day` the credit counts on the
    day of the period nearest to today. Tokens and searches do not change the cost: no request's price
    applies. Raises Invalid if
    the amounts, the period or the day are not valid; Conflict if the reference belongs to another entry. A repeated
    call without a period or day means those of the first call, so it may cross midnight.
    """
    _check(amounts, reason)
    if min(amounts.counts.values) < 0:
        raise Invalid("the amounts of a credit are positive")
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
        key_id=NO_KEY_ID,
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
        raise Invalid(f"give a reason of 1 to {MAX_REASON} characters")
    if not any(amounts.counts.values):
        raise Invalid("all amounts are 0: nothing would change")
    if max(map(abs, amounts.counts.values)) > MAX_AMOUNT:
        raise Invalid(f"an amount is at most {MAX_AMOUNT}")


async def _priced(session: AsyncSession, row: NamedRow, known: Measurement, deltas: Amounts) -> UsageCounts:
    """The differences, with the cost that follows from the usage."""
    counts = deltas.counts
    if not any(counts.usage):
        return counts
    book = PriceBook(await read_prices(session))
    if row["price_id"] is None:
        raise Invalid("the request has no price: correct its cost_nano_usd")
    price, _ = book.settle(known.model, to_ms(row["opened_at"]), book.by_id(row["price_id"]))
    modifiers = Modifiers.parse(row["modifiers"])
    before = Usage(*known.counts.usage)
    after = before + Usage(*counts.usage)
    cost = price.cost_nano_usd(after, modifiers) - price.cost_nano_usd(before, modifiers)
    if abs(cost) > _MAX_COST_NANO_USD:
        raise Invalid("the cost would exceed the most that a request can cost")
    return replace(counts, cost_nano_usd=cost)


def _require_enough(known: UsageCounts, change: UsageCounts) -> None:
    """Raises Invalid if the change lowers a count below 0; a count that is below 0 already may be raised."""
    for name in COUNT_COLUMNS:
        if getattr(change, name) < 0 and getattr(known, name) + getattr(change, name) < 0:
            raise Invalid(f"{name} is {getattr(known, name)} and would fall below 0")


async def _write(fetch: Fetch, entry: Entry, same: Mapping[str, Any], asked: Amounts) -> Written:
    """Appends the entry, or returns the one with its reference. Raises Conflict if that one differs."""
    appended = await append(fetch, [entry])
    if appended:
        return Written(appended[0], is_new=True)
    found = await entry_by_reference(fetch, entry.tenant_id, entry.reference or "")
    if found is None:
        raise Conflict("the reference is in use")
    return _repeated(found, same, asked, entry.counts)


def _repeated(found: NamedRow, same: Mapping[str, Any], asked: Amounts, counts: UsageCounts) -> Written:
    """The entry of a reference, if it is the same. Ignores the cost if the price list determined it."""
    stored = UsageCounts.of(found)
    if asked.cost_nano_usd is None:
        stored, counts = replace(stored, cost_nano_usd=0), replace(counts, cost_nano_usd=0)
    if stored != counts or any(found[name] != value for name, value in same.items()):
        raise Conflict("another entry has this reference")
    return Written(found, is_new=False)


def _audit(session: AsyncSession, actor: Actor, action: str, entry: NamedRow, **states: dict[str, Any]) -> None:
    """Writes the audit entry, in the same transaction. `before` and `after`: the request's effective usage."""
    owner, request_id = entry["tenant_id"], entry["request_id"]
    target = f"user:{entry['user_id']}" if request_id is None else f"request:{request_id}"
    after = {
        **(states.get("after") or {}),
        "entry": str(entry["id"]),
        "period": entry["period_id"],
        "change": asdict(UsageCounts.of(entry)),
        "reason": entry["reason"],
        "reference": entry["reference"],
    }
    record(session, actor, action, tenant_id=owner, target=target, before=states.get("before"), after=after)
