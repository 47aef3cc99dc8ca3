"""Compares the counters in Redis with Postgres, exactly, also under traffic.

A hash is read first, and Postgres after it in one snapshot, so every change in between is known by request: one that
Redis still holds for is compared as a hold, whatever its state in Postgres, and one granted after the read is left out.
Only differences that stay the same are drifts.

Only hashes of the tenant's current epoch and of this run of Redis are compared: any other is rebuilt before use. `used`
is compared in the day and the period of the last grant, which are complete; a hash that was built since, without a
grant, may lack usage of a past day. Raises Unavailable when either store is down.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from core.ids import uuid7_floor, uuid7_ms
from core.postgres.database import Connections
from metering.admission.redis_scripts import QuotaScripts, built_users_key, tenant_key, user_key
from metering.counts import counts_in
from metering.quota.counters import HELD, Hold, WindowState
from metering.reconciliation.drifts import REDIS, Drift, Month, counts
from metering.sql import load

_TRIES = 5
_PAUSE_S = 0.4
_USERS = 200  # hashes that are read, and summed by Postgres, at a time
_STATEMENT_S = 600

Drifts = dict[tuple[Any, ...], Drift]
Used = dict[tuple[UUID | None, str], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ExpectedCounters:
    """A hash, of a user or (None) of the tenant, as read when new ids were at `before`."""

    user_id: UUID | None
    before: UUID
    fields: dict[bytes, bytes]
    holds: dict[UUID, Hold]

    @classmethod
    def of(cls, user_id: UUID | None, before: UUID, fields: dict[bytes, bytes]) -> "ExpectedCounters":
        """The counters of all fields of a hash."""
        holds = {UUID(name[2:].decode()): Hold.unpack(value) for name, value in fields.items() if name[:2] == b"h:"}
        return cls(user_id, before, fields, holds)

    @property
    def granted(self) -> bool:
        """Whether there was a grant since the build: admit.lua names the minute first, a build sorts the names."""
        return self.fields.get(b"k", b"").startswith(b"m:")

    @property
    def windows(self) -> list[str]:
        """The day and the period that are compared: the newest, since a build may leave several."""
        names = sorted(self.fields.get(b"k", b"").decode().split())
        newest = {name[:2]: name for name in names if name[:2] in ("d:", "p:")}
        return list(newest.values())

    def name(self, prefix: str) -> str | None:
        """The day (`d:`) or the period (`p:`) of the last grant; None when there was none."""
        named = [name[2:] for name in self.windows if name.startswith(prefix)]
        return named[0] if named and self.granted else None

    @property
    def subject(self) -> dict[str, str]:
        """The owner of the hash."""
        return {"of": "the tenant" if self.user_id is None else f"user {self.user_id}"}


@dataclass(frozen=True, slots=True)
class RedisCheck:
    """Compares one tenant at a time."""

    connections: Connections
    quota: QuotaScripts

    async def drifts(self, tenant_id: UUID) -> list[Drift]:
        """The differences that stay the same over several reads. Raises Unavailable."""
        found = await self._compare(tenant_id)
        for _ in range(_TRIES - 1):
            if not found:
                break
            await asyncio.sleep(_PAUSE_S)
            again = await self._compare(tenant_id)
            found = {identity: drift for identity, drift in again.items() if identity in found}
        return list(found.values())

    async def _compare(self, tenant_id: UUID) -> Drifts:
        run_id = await self.quota.pipeline.connect()
        (of_tenant,) = await self._read([(None, tenant_key(tenant_id))])
        epoch = of_tenant.fields.get(b"e")
        if epoch is None or of_tenant.fields.get(b"r") != run_id.encode():
            return {}
        drifts = await self._against_postgres(tenant_id, int(epoch), [of_tenant])
        async for some in self._built_users(tenant_id):
            shadows = await self._read([(user_id, user_key(tenant_id, user_id)) for user_id in some])
            live = [shadow for shadow in shadows if shadow.fields.get(b"e") == epoch]
            drifts |= await self._against_postgres(tenant_id, int(epoch), live)
        return drifts

    async def _built_users(self, tenant_id: UUID) -> AsyncIterator[list[UUID]]:
        """The users whose hashes were built, some at a time, so that no command of Redis is longer for more of them."""
        cursor: Any = b"0"
        while True:
            cursor, users = await self.quota.pipeline.command(
                "SSCAN", built_users_key(tenant_id), cursor, "COUNT", _USERS
            )
            if users:
                yield [UUID(user.decode()) for user in users]
            if cursor == b"0":
                return

    async def _read(self, keys: Sequence[tuple[UUID | None, str]]) -> list[ExpectedCounters]:
        """Reads hashes, each atomically. The clock is read before: later grants may be in them or not."""
        before = uuid7_floor(await self.quota.now_ms())
        answers = [self.quota.pipeline.command("HGETALL", key) for _, key in keys]
        return [
            ExpectedCounters.of(user_id, before, _pairs(await answer))
            for (user_id, _), answer in zip(keys, answers, strict=True)
        ]

    async def _against_postgres(self, tenant_id: UUID, epoch: int, shadows: Sequence[ExpectedCounters]) -> Drifts:
        """The differences of hashes of one kind: the tenant's, or some of its users'."""
        held = list({request for shadow in shadows for request in shadow.holds})
        users = [shadow.user_id for shadow in shadows if shadow.user_id is not None]
        async with (
            self.connections.acquire(patient=True) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            if not shadows or epoch != await connection.fetchval(_IN_FORCE, tenant_id):
                return {}
            rows = await connection.fetch(
                load("reconcile_requests"), tenant_id, held, users or None, timeout=_STATEMENT_S
            )
            used = await self._used(connection, tenant_id, shadows, held)
        found: list[Drift] = []
        for shadow in shadows:
            mine = {row["id"]: row for row in rows if shadow.user_id in (None, row["user_id"])}
            found += _holds(tenant_id, shadow, mine)
            found += _windows(tenant_id, shadow, used)
        return {drift.identity: drift for drift in found}

    @staticmethod
    async def _used(connection: Any, tenant_id: UUID, shadows: Sequence[ExpectedCounters], held: list[UUID]) -> Used:
        """The usage in the windows of each hash: what Postgres has settled and Redis does not hold for."""
        whole = [
            (shadow, day, period) for shadow in shadows if (day := shadow.name("d:")) and (period := shadow.name("p:"))
        ]
        statement = load("reconcile_windows")
        if shadows[0].user_id is None:  # left out, not made optional: the index of users serves only a plain equality
            statement = statement.replace("AND user_id = h.user_id ", "")
        rows = await connection.fetch(
            statement,
            tenant_id,
            [shadow.user_id for shadow, _, _ in whole],
            [min(Month(day[:7]), Month(period[:7])).ids()[0] for _, day, period in whole],
            [shadow.before for shadow, _, _ in whole],
            [date.fromisoformat(day) for _, day, _ in whole],
            [period for _, _, period in whole],
            held,
            timeout=_STATEMENT_S,
        )
        return {(row["user_id"], row["kind"]): counts_in(row) for row in rows}


_HELD_COLUMNS = ("held_prompt_tokens", "held_output_tokens", "held_web_searches", "held_nano_usd")
"""The columns of what a request holds, in the order of HELD."""
_IN_FORCE = "SELECT epoch FROM tenant_epochs WHERE tenant_id = $1 AND fallback_until IS NULL"


def _holds(tenant_id: UUID, shadow: ExpectedCounters, rows: dict[UUID, Any]) -> Iterable[Drift]:
    """Holds without an open request, open requests without a hold, and a wrong number of running requests.

    A hold past its deadline is ignored: the next request of its hash asks Postgres about it.
    """
    for request, hold in shadow.holds.items():
        row = rows.get(request)
        lapsed = hold.deadline_ms < uuid7_ms(shadow.before)
        if not lapsed and (row is None or not row["holds"]):
            why = "unknown" if row is None else str(row["state"])
            subject = shadow.subject | {"hold": str(request), "request": why}
            yield Drift(REDIS, tenant_id, subject, {}, dict(zip(HELD, hold.amounts, strict=True)))
    for request, row in rows.items():
        if row["holds"] and request not in shadow.holds and request.int < shadow.before.int:
            amounts = (1, *(row[name] for name in _HELD_COLUMNS))
            subject = shadow.subject | {"hold": str(request), "request": "open" if row["state"] == "open" else "kept"}
            yield Drift(REDIS, tenant_id, subject, dict(zip(HELD, amounts, strict=True)), {})
    running = int(shadow.fields.get(b"c", b"0"))
    if running != len(shadow.holds):
        subject = shadow.subject | {"concurrency": "running"}
        yield Drift(REDIS, tenant_id, subject, {"running": len(shadow.holds)}, {"running": running})


def _windows(tenant_id: UUID, shadow: ExpectedCounters, used: Used) -> Iterable[Drift]:
    """Windows that differ from their usage and holds."""
    for name in shadow.windows:
        state = WindowState.unpack(shadow.fields.get(name.encode()))
        holds = [hold.amounts for hold in shadow.holds.values() if name in hold.windows]
        expected = dict(zip(HELD, (sum(column) for column in zip((0,) * len(HELD), *holds, strict=True)), strict=True))
        actual = dict(zip(HELD, state.held, strict=True))
        if shadow.granted:
            expected |= counts(used.get((shadow.user_id, name[0]), WindowState().used))
            actual |= counts(state.used)
        if expected != actual:
            yield Drift(REDIS, tenant_id, shadow.subject | {"window": name}, expected, actual)


def _pairs(answer: Any) -> dict[bytes, bytes]:
    """The hash of an answer in RESP2 or RESP3."""
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
