"""The journal's gateway to Postgres: requests are opened, settled and looked up here, in group commits.

Postgres has the last word on every open, and knows every request before the provider does. Away: opens fail with
`Unavailable` and nothing is admitted; settlements go to the spool (or, without one, wait and are tried again).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from core.clock import to_datetime
from core.ids import uuid7
from core.postgres.connection import Connection
from core.postgres.url import PostgresUrl
from metering.journal.group_commit import GroupCommitter, Spillover
from metering.journal.records import ERRORS, OpenRequest, Settlement
from metering.sql import load

_SQL = Path(__file__).parent / "load"
_SHARDS = 32
_SETTLE_RETRY_S = 0.25
_ERRORS = sorted(outcome.value for outcome in ERRORS)


class Opened(Enum):
    """What became of a request that asked to be opened."""

    OPEN = "open"
    EPOCH_MOVED = "epoch"
    KEY_ENDED = "key"


@dataclass(frozen=True, slots=True)
class InFallback:
    """Not opened: Postgres admits the tenant, for `remaining_s` at least. Not positive: it may go back to Redis."""

    remaining_s: float


class Settled(Enum):
    """What became of a settlement. All three are safe: whoever waits may be told that the books have it."""

    NOW = "now"
    BEFORE = "before"  # the row was not open any more: another was quicker, or an earlier try had committed
    SPOOLED = "spooled"  # Postgres is away: it is on our disk, to be replayed


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """What Postgres knows of a request: its state, and its seven counts as Redis adds them to a window.

    `holds`: its hold counts in full, not its counts; it is open, or was settled for a process that may only sleep.
    """

    state: str
    user_id: UUID
    counts: tuple[int, ...]
    holds: bool


class Journal:
    """Two lanes, so that settlements do not queue behind opens. One per process."""

    def __init__(
        self,
        url: str | PostgresUrl,
        *,
        timeout_s: float,
        process_id: UUID | None = None,
        refuge: Spillover[Settlement, Settled] | None = None,
    ) -> None:
        self.process_id = process_id or uuid7()
        self._shard = self.process_id.int % _SHARDS
        self.opens: GroupCommitter[OpenRequest, Opened | InFallback] = GroupCommitter(
            "open", url, self._open, self._open_in_doubt, timeout_s=timeout_s, retry_s=None
        )
        self.settlements: GroupCommitter[Settlement, Settled] = GroupCommitter(
            "settle", url, self._settle, self._settle, timeout_s=timeout_s, retry_s=_SETTLE_RETRY_S, refuge=refuge
        )

    def start(self) -> None:
        """Starts both lanes."""
        self.opens.start()
        self.settlements.start()

    async def stop(self) -> None:
        """Finishes what is queued."""
        await self.opens.stop()
        await self.settlements.stop()

    async def _open(self, connection: Connection, batch: list[OpenRequest]) -> list[Opened | InFallback]:
        opened = await open_batch(connection, batch, self.process_id)
        bounced = [request for request in batch if request.id not in opened]
        why = await _why_bounced(connection, bounced) if bounced else {}
        return [Opened.OPEN if request.id in opened else why[request.key_id] for request in batch]

    async def _open_in_doubt(self, connection: Connection, batch: list[OpenRequest]) -> list[Opened | InFallback]:
        """The connection broke during `_open`: what was not committed is made void, and asks again."""
        known = await void_unknown(connection, [(request.tenant_id, request.id, request.user_id) for request in batch])
        return [Opened.OPEN if known[request.id].state == "open" else Opened.EPOCH_MOVED for request in batch]

    async def _settle(self, connection: Connection, batch: list[Settlement]) -> list[Settled]:
        settled = await settle_batch(connection, batch, self._shard)
        return [Settled.NOW if settlement.id in settled else Settled.BEFORE for settlement in batch]


async def open_batch(connection: Any, batch: Sequence[OpenRequest], process_id: UUID) -> set[UUID]:
    """Opens those whose epoch and key are good, on an asyncpg connection; answers which they were."""
    return {row["id"] for row in await connection.fetch(load("open"), *_columns(_OPEN, batch), process_id)}


async def _why_bounced(connection: Any, requests: Sequence[OpenRequest]) -> dict[UUID, Opened | InFallback]:
    """By key: what kept the requests from being opened."""
    opened_at = [to_datetime(request.opened_ms) for request in requests]
    keys = [[request.tenant_id for request in requests], [request.key_id for request in requests], opened_at]
    why: dict[UUID, Opened | InFallback] = {}
    for row in await connection.fetch(load("bounced"), *keys):
        if not row["key_is_good"]:
            why[row["key_id"]] = Opened.KEY_ENDED
        elif row["fallback_s"] is None:
            why[row["key_id"]] = Opened.EPOCH_MOVED
        else:
            why[row["key_id"]] = InFallback(row["fallback_s"])
    return why


async def settle_batch(connection: Any, batch: Sequence[Settlement], shard: int) -> set[UUID]:
    """Settles those that are open, on an asyncpg connection; answers which they were. Repeating it moves nothing."""
    return {row["id"] for row in await connection.fetch(load("settle"), *_columns(_SETTLE, batch), shard, _ERRORS)}


async def void_unknown(connection: Connection, requests: Sequence[tuple[UUID, UUID, UUID]]) -> dict[UUID, KnownRequest]:
    """What stands for each (tenant, id, user), after those that Postgres did not know were made void."""
    tenants, ids, users = (list(column) for column in zip(*requests, strict=True))
    await connection.execute(load("void"), tenants, ids, users)
    return await states(connection, tenants, ids)


async def states(connection: Connection, tenants: list[UUID], ids: list[UUID]) -> dict[UUID, KnownRequest]:
    """What Postgres knows of these requests, by id."""
    rows = await connection.fetch(load("states"), tenants, ids)
    return {
        row["id"]: KnownRequest(row["state"], row["user_id"], tuple(row.values())[4:11], row["holds"]) for row in rows
    }


_OPEN = (
    lambda r: r.tenant_id,
    lambda r: r.id,
    lambda r: r.user_id,
    lambda r: r.key_id,
    lambda r: r.epoch,
    lambda r: r.price_id,
    lambda r: r.plan_version,
    lambda r: r.period_id,
    lambda r: r.day,
    lambda r: to_datetime(r.opened_ms),
    lambda r: to_datetime(r.deadline_ms),
    lambda r: r.model,
    lambda r: r.held_prompt_tokens,
    lambda r: r.held_output_tokens,
    lambda r: r.held_nano_usd,
)
_SETTLE = (
    lambda s: s.tenant_id,
    lambda s: s.id,
    lambda s: s.outcome.value,
    lambda s: s.source.value,
    lambda s: s.model,
    lambda s: s.model_known,
    lambda s: s.stop_reason,
    lambda s: s.upstream_request_id,
    lambda s: s.upstream_message_id,
    lambda s: s.output_chars,
    lambda s: s.requests,
    lambda s: s.usage.input_tokens,
    lambda s: s.usage.output_tokens,
    lambda s: s.usage.cache_read_tokens,
    lambda s: s.usage.cache_write_5m_tokens,
    lambda s: s.usage.cache_write_1h_tokens,
    lambda s: s.cost_nano_usd,
)


def _columns(getters: Iterable[Any], batch: Sequence[Any]) -> list[list[Any]]:
    """A batch of records as one array for each parameter of its statement."""
    return [[get(record) for record in batch] for get in getters]
