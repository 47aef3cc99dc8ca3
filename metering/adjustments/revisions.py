"""Revisions: a better measurement of a request that is settled already becomes an entry, never an overwrite.

The row keeps its first settlement for ever; only its `hold_until` may change, because its hold is over once the true
counts are in. Postgres away: the driver's error, and nothing was written; say it again whenever, as often as you like.
"""

from dataclasses import replace
from typing import Any

from core.ids import uuid7
from core.logs import get_logger
from metering.adjustments.ledger import SHARD, append, end_hold, entries_of, lock_request, retry_collisions
from metering.adjustments.measurement import Entry, Measurement, Named, latest
from metering.journal.epoch import move_epoch
from metering.journal.journal import settle_batch
from metering.journal.records import Settlement

log = get_logger(__name__)


async def revise(connection: Any, settlement: Settlement, *, actor: str = "naka") -> bool:
    """Puts a better measurement on top of what is known of a request, in a transaction of its own.

    For whoever finds that its request was settled by somebody else: recovery was quicker, or a spool is replayed. Only
    a measurement that is strictly better (see `Measurement.rank`) is written, which is judged under the row's lock; so
    any number of repetitions, in any order and at once, end alike. Corrections and credits stay on top. One that is
    no better changes no count, but ends a hold that was kept for the sleeper: whoever says it has ended its stream.

    True when it is in the books now and was not before: as a revision, or, if the row still was open, as its
    settlement. A row that is void, or missing, takes none, and False is the answer: a request whose open was in doubt
    and was made void never reached the provider, and a month that was dropped is closed. Both are loud.
    """
    return await retry_collisions(connection.transaction, lambda: _revise(connection, settlement, actor))


async def _revise(connection: Any, settlement: Settlement, actor: str) -> bool:
    row = await lock_request(connection.fetch, settlement.tenant_id, settlement.id)
    if row is None or row["state"] == "void":
        log.critical(
            "settlement_of_no_request",
            tenant_id=str(settlement.tenant_id),
            request_id=str(settlement.id),
            state=None if row is None else row["state"],
            settlement=repr(settlement),
        )
        return False
    if row["state"] == "open":
        return bool(await settle_batch(connection, [settlement], SHARD))
    known = latest(row, await entries_of(connection.fetch, settlement.tenant_id, settlement.id))
    better = Measurement.of(settlement)
    is_better = better.rank > known.rank
    if row["hold_until"] is not None:
        await end_hold(connection.fetch, row)
        if not is_better:  # an entry moves the epoch by itself
            await move_epoch(connection.fetch, settlement.tenant_id)
    if is_better:
        await append(connection.fetch, _revisions(row, known, better, actor))
        log.info("usage_revised", request_id=str(settlement.id), before=known.source, now=better.source)
    return is_better


def _revisions(row: Named, known: Measurement, better: Measurement, actor: str) -> list[Entry]:
    """The difference, as one entry; or, when another model had answered, one that takes away and one that adds."""
    entry = Entry(
        tenant_id=row["tenant_id"],
        id=uuid7(),
        kind="revision",
        request_id=row["id"],
        user_id=row["user_id"],
        key_id=row["key_id"],
        model=better.model or row["model"],
        period_id=row["period_id"],
        day=row["day"],
        source=better.source,
        outcome=better.outcome,
        actor=actor,
        reason=f"{better.source} instead of {known.source}, {better.outcome} instead of {known.outcome}",
        counts=better.counts - known.counts,
    )
    if better.model == known.model:
        return [entry]
    taken = replace(
        entry, id=uuid7(), model=known.model or row["model"], source=None, outcome=None, counts=-known.counts
    )
    return [taken, replace(entry, id=uuid7(), counts=better.counts)]
