"""The journal's access to Postgres: opens, settles and looks up requests in group commits.

Postgres decides every open, and knows a request before the provider does. Postgres down: opens fail with `Unavailable`,
so nothing is admitted; settlements go to the spool (without one, they wait and are retried).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any
from uuid import UUID

from core.ids import uuid7
from core.postgres.connection import Connection
from core.postgres.url import PostgresUrl
from metering.counts import COUNT_COLUMNS, counts_in
from metering.journal.group_commit import GroupCommitter, Spillover
from metering.journal.records import ERROR_OUTCOMES, OpenRequest, Settlement
from metering.sql import load

_SHARDS = 32
_SETTLE_RETRY_S = 0.25


class Opened(Enum):
    """The result of opening a request."""

    OPEN = "open"
    EPOCH_MOVED = "epoch"
    KEY_ENDED = "key"
    USER_DISABLED = "user"


@dataclass(frozen=True, slots=True)
class InFallback:
    """Not opened: Postgres admits the tenant, for at least `remaining_s`. Not positive: Redis may take it back."""

    remaining_s: float


class Settled(Enum):
    """The result of a settlement. In all three cases it is durable, and the client may be told."""

    NOW = "now"
    BEFORE = "before"  # the row was not open: somebody else settled it, or an earlier try had committed
    SPOOLED = "spooled"  # Postgres is down: it is on this host's disk, to be replayed


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request as Postgres knows it; `counts` are the nine that Redis adds to a window.

    `holds`: its hold counts in full instead of its counts: it is open, or was settled for a process that may only be
    suspended.
    """

    state: str
    user_id: UUID
    counts: tuple[int, ...]
    holds: bool


class Journal:
    """Two committers, so that settlements do not queue behind opens. One per process."""

    def __init__(
        self,
        url: str | PostgresUrl,
        *,
        timeout_s: float,
        process_id: UUID | None = None,
        spillover: Spillover[Settlement, Settled] | None = None,
    ) -> None:
        self.process_id = process_id or uuid7()
        self._shard = self.process_id.int % _SHARDS
        self.opens: GroupCommitter[OpenRequest, Opened | InFallback] = GroupCommitter(
            "open", url, self._open, self._open_in_doubt, timeout_s=timeout_s, retry_s=None
        )
        self.settlements: GroupCommitter[Settlement, Settled] = GroupCommitter(
            "settle", url, self._settle, self._settle, timeout_s=timeout_s, retry_s=_SETTLE_RETRY_S, spillover=spillover
        )

    def start(self) -> None:
        """Starts both committers."""
        self.opens.start()
        self.settlements.start()

    async def stop(self) -> None:
        """Commits both queues, and stops."""
        await self.opens.stop()
        await self.settlements.stop()

    async def _open(self, connection: Connection, batch: list[OpenRequest]) -> list[Opened | InFallback]:
        return await open_or_explain(connection, batch, self.process_id)

    async def _open_in_doubt(self, connection: Connection, batch: list[OpenRequest]) -> list[Opened | InFallback]:
        """The answers of a batch whose connection broke: rows that were not committed become void, and ask again."""
        known = await void_unknown(connection, [(request.tenant_id, request.id, request.user_id) for request in batch])
        return [Opened.OPEN if known[request.id].state == "open" else Opened.EPOCH_MOVED for request in batch]

    async def _settle(self, connection: Connection, batch: list[Settlement]) -> list[Settled]:
        settled = await settle_batch(connection, batch, self._shard)
        return [Settled.NOW if settlement.id in settled else Settled.BEFORE for settlement in batch]


async def open_or_explain(connection: Any, batch: Sequence[OpenRequest], process_id: UUID) -> list[Opened | InFallback]:
    """Opens the requests whose epoch, key and user are valid; why the others were not opened."""
    opened = await open_batch(connection, batch, process_id)
    refused = [request for request in batch if request.id not in opened]
    reasons = await refusal_reasons(connection, refused) if refused else {}
    return [Opened.OPEN if request.id in opened else reasons[request.key_id, request.user_id] for request in batch]


async def open_batch(connection: Any, batch: Sequence[OpenRequest], process_id: UUID) -> set[UUID]:
    """Opens the requests whose epoch, key and user are valid, on an asyncpg connection; returns their ids."""
    return {row["id"] for row in await connection.fetch(load("open"), *_columns(_OPEN, batch), process_id)}


async def refusal_reasons(
    connection: Any, requests: Sequence[OpenRequest]
) -> dict[tuple[UUID, UUID], Opened | InFallback]:
    """The reason why requests were not opened, by key and user."""
    columns = _columns(("tenant_id", "key_id", "user_id", "opened_at"), requests)
    reasons: dict[tuple[UUID, UUID], Opened | InFallback] = {}
    for row in await connection.fetch(load("not_opened"), *columns):
        whose = row["key_id"], row["user_id"]
        if not row["key_is_good"]:
            reasons[whose] = Opened.KEY_ENDED
        elif not row["user_is_good"]:
            reasons[whose] = Opened.USER_DISABLED
        elif row["fallback_s"] is None:
            reasons[whose] = Opened.EPOCH_MOVED
        else:
            reasons[whose] = InFallback(row["fallback_s"])
    return reasons


async def settle_batch(connection: Any, batch: Sequence[Settlement], shard: int) -> set[UUID]:
    """Settles the requests that are open, on an asyncpg connection; returns their ids. Idempotent.

    Of several settlements of one request (a spool may hold one twice) the first counts.
    """
    batch = list({settlement.id: settlement for settlement in reversed(batch)}.values())
    counts = _columns(COUNT_COLUMNS, [settlement.counts for settlement in batch])
    others = [(settlement.id, other) for settlement in batch for other in settlement.others]
    request_ids, parts = [request_id for request_id, _ in others], [other for _, other in others]
    entries = [request_ids, [uuid7() for _ in others], *_columns(("model",), parts)]
    of_others = _columns(COUNT_COLUMNS, [part.counts for part in parts])
    ids = await connection.fetchval(
        load("settle"), *_columns(_SETTLE, batch), *counts, shard, ERROR_OUTCOMES, *entries, *of_others
    )
    return set(ids or ())


async def void_unknown(connection: Connection, requests: Sequence[tuple[UUID, UUID, UUID]]) -> dict[UUID, KnownRequest]:
    """The state of each (tenant, id, user), after inserting a void row for those without a row."""
    tenants, ids, users = (list(column) for column in zip(*requests, strict=True))
    await connection.execute(load("void"), tenants, ids, users)
    return await states(connection, tenants, ids)


async def states(connection: Connection, tenants: list[UUID], ids: list[UUID]) -> dict[UUID, KnownRequest]:
    """The requests as Postgres knows them, by id; unknown ones are missing."""
    rows = await connection.fetch(load("request_states"), tenants, ids)
    return {row["id"]: KnownRequest(row["state"], row["user_id"], counts_in(row), row["holds"]) for row in rows}


_OPEN = tuple(field.name.replace("_ms", "_at") for field in fields(OpenRequest))
_COUNTED = {"user_id", "requests", "usage", "cost_nano_usd", "others"}  # the row has the user, and `counts` the rest
_SETTLE = tuple(field.name for field in fields(Settlement) if field.name not in _COUNTED)


def _columns(names: Sequence[str], batch: Sequence[Any]) -> list[list[Any]]:
    """The records as one array per parameter of their statement."""
    return [[getattr(record, name) for record in batch] for name in names]
