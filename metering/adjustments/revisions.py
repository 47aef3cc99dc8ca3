"""Revisions: a better measurement of a settled request becomes an entry, never an overwrite.

The row keeps its first settlement. Only its `hold_until` changes, since the hold ends with the better measurement, and
its `modifiers`, by which a correction is priced.
Idempotent. Postgres down: the driver's error, and nothing is written.
"""

from dataclasses import replace
from typing import Any

from core.ids import uuid7
from core.logs import get_logger
from metering.adjustments.ledger import (
    SHARD,
    append,
    end_hold,
    entries_of,
    lock_request,
    retry_collisions,
    set_modifiers,
)
from metering.adjustments.measurement import Entry, Measurement, latest
from metering.counts import NamedRow, UsageCounts
from metering.journal.epoch import move_epoch
from metering.journal.journal import settle_batch
from metering.journal.records import Settlement

log = get_logger(__name__)


async def revise(connection: Any, settlement: Settlement) -> bool:
    """Records a better measurement of a request that somebody else settled, in a transaction of its own.

    Recovery may have been quicker, or a spool is replayed. A measurement is written only if it is strictly better
    (`Measurement.rank`), which is decided under the row's lock: repetitions, in any order and concurrent, end alike.
    Corrections and credits stay on top. One that is no better changes no count, but ends a hold that was kept for a
    suspended process, since its stream has ended.

    Returns True if this call recorded it: as a revision, or as the settlement of a row that was still open. Returns
    False, and logs, for a void or missing row: a request that was made void never reached the provider, and a dropped
    month is closed.
    """
    return await retry_collisions(connection.transaction, lambda: _revise(connection, settlement))


async def _revise(connection: Any, settlement: Settlement) -> bool:
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
        if not is_better:  # else `append` moves the epoch
            await move_epoch(connection.fetch, settlement.tenant_id)
    if is_better:
        await append(connection.fetch, _revisions(row, known, better))
        if settlement.modifiers != row["modifiers"]:
            await set_modifiers(connection.fetch, row, settlement.modifiers)
        log.info("usage_revised", request_id=str(settlement.id), before=known.source, now=better.source)
    return is_better


def _revisions(row: NamedRow, known: Measurement, better: Measurement) -> list[Entry]:
    """The differences, an entry per model. That of the model that answered has the source and the outcome."""
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
        actor="naka",
        reason=f"{better.source} instead of {known.source}, {better.outcome} instead of {known.outcome}",
        counts=better.counts - known.by_model.get(better.model, UsageCounts()),
    )
    before, after = known.by_model, better.by_model
    changed = [
        replace(entry, id=uuid7(), model=model or row["model"], source=None, outcome=None, counts=change)
        for model in {**before, **after}
        if model != better.model
        and (change := after.get(model, UsageCounts()) - before.get(model, UsageCounts())) != UsageCounts()
    ]
    return [*changed, entry]
