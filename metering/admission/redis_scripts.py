"""The quota's gateway to Redis: whether a request may start, and what the windows say.

One hash per user and one per tenant, under the tenant's hash tag, so that the scripts run on a Redis Cluster as they
are. Everything here is a shadow of Postgres and may be lost; the epoch tells when it was. Counts are doubles in Redis:
exact up to 2**53 (`core.money.MAX_EXACT_DOUBLE`). Its clock is ahead by what a test clock says. Redis away or slow:
`RedisAway`, and Postgres decides (`metering.admission.postgres_grants`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from core.clock import offset_ms
from core.ids import random_tail
from metering.admission.redis_pipeline import RedisPipeline, load_script
from metering.quota.counters import ScopeCounters
from metering.quota.limits import Entitlement
from metering.quota.query import QuotaQuery, Refused, Reservation


@dataclass(frozen=True, slots=True)
class Stale:
    """The shadow is not whole: the tenant's hash (or, `user_only`, the user's) is built from Postgres first."""

    epoch: int
    user_only: bool


@dataclass(frozen=True, slots=True)
class Outdated:
    """The shadow was built in `epoch`, after the entitlement was read, which may have changed: read it again."""

    epoch: int


@dataclass(frozen=True, slots=True)
class OtherTime:
    """The question is not meant for Redis's time, `now_ms`: another day, period or stretch of the entitlement."""

    now_ms: int


def tenant_key(tenant_id: UUID) -> str:
    """The key of a tenant's hash. The braces are the hash tag of Redis Cluster."""
    return f"naka:{{{tenant_id.hex}}}"


def user_key(tenant_id: UUID, user_id: UUID) -> str:
    """The key of a user's hash, in its tenant's slot."""
    return f"naka:{{{tenant_id.hex}}}:{user_id.hex}"


def built_users_key(tenant_id: UUID) -> str:
    """The key of the set of users whose hashes were built in the epoch of the tenant's hash, in its slot."""
    return f"{tenant_key(tenant_id)}:users"


def _keys(tenant_id: UUID, user_id: UUID) -> tuple[str, str, str]:
    """What the scripts of a user are given."""
    return tenant_key(tenant_id), user_key(tenant_id, user_id), built_users_key(tenant_id)


class QuotaScripts:
    """The scripts, as functions. One per process."""

    def __init__(self, lane: RedisPipeline) -> None:
        self.lane = lane
        self._admit = load_script("admit")
        self._settle = load_script("settle")
        self._build_tenant = load_script("build_tenant")
        self._build_user = load_script("build_user")
        self._lapsed = load_script("lapsed")

    async def admit(
        self, ask: QuotaQuery, entitlement: Entitlement
    ) -> Reservation | Refused | Stale | Outdated | OtherTime:
        """Checks every window of the user and the tenant, and takes the hold, in one step. Raises RedisAway."""
        question = msgspec.msgpack.encode(
            [
                ask.user_id.hex,
                ask.day.name,
                ask.day.ends_ms,
                ask.period.name,
                ask.period.ends_ms,
                ask.from_ms,
                ask.until_ms,
                random_tail(),
                ask.prompt_bound,
                ask.prompt_nano_usd,
                ask.prompt_likely,
                ask.likely_nano_usd,
                ask.asked_output,
                ask.smallest_output,
                ask.output_rate,
                ask.ttl_ms,
                ask.read_epoch,
                offset_ms(),
                int(ask.resumes),
            ]
        )
        keys = _keys(ask.tenant_id, ask.user_id)
        return _verdict(await self.lane.call(self._admit, keys, question, entitlement.packed, needs_run=True))

    async def settle(self, tenant_id: UUID, user_id: UUID, request_id: UUID, counts: Sequence[int]) -> int:
        """Puts `counts` (seven) in place of the request's hold, where there still is one. Raises RedisAway.

        Answers how many of the two hashes had the hold.
        """
        keys = (tenant_key(tenant_id), user_key(tenant_id, user_id))
        packed = msgspec.msgpack.encode(list(counts))
        released: int = await self.lane.call(self._settle, keys, request_id.hex, packed)
        return released

    async def build_tenant(self, tenant_id: UUID, epoch: int, run_id: str, fields: dict[str, Any]) -> bool:
        """Writes the tenant's hash of a new epoch. False when another process has built this or a newer one."""
        flat = [part for pair in fields.items() for part in pair]
        keys = (tenant_key(tenant_id), built_users_key(tenant_id))
        return bool(await self.lane.call(self._build_tenant, keys, epoch, run_id, *flat))

    async def build_user(self, tenant_id: UUID, user_id: UUID, epoch: int, run_id: str, fields: dict[str, Any]) -> bool:
        """Writes a user's hash, if the tenant's still is of this epoch and the user's was not built in it."""
        flat = [part for pair in fields.items() for part in pair]
        keys = _keys(tenant_id, user_id)
        return bool(await self.lane.call(self._build_user, keys, epoch, run_id, user_id.hex, *flat))

    async def lapsed(self, key: str, again_ms: int) -> list[tuple[UUID, UUID]]:
        """The holds of one hash whose deadline has passed: (request, user). They are looked at again in `again_ms`."""
        flat = await self.lane.call(self._lapsed, (key,), again_ms, offset_ms())
        return [(UUID(flat[i].decode()), UUID(flat[i + 1].decode())) for i in range(0, len(flat), 2)]

    async def epoch(self, tenant_id: UUID, run_id: str) -> int | None:
        """The epoch of the tenant's hash; None when there is none that was built in this run."""
        epoch, run = await self.lane.command("HMGET", tenant_key(tenant_id), "e", "r")
        return int(epoch) if epoch is not None and run.decode() == run_id else None

    async def now_ms(self) -> int:
        """Redis's clock, which grants go by."""
        seconds, micros = await self.lane.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000 + offset_ms()

    async def read(
        self, tenant_id: UUID, user_id: UUID, windows: Sequence[str], *, least_epoch: int = 0
    ) -> tuple[ScopeCounters, ScopeCounters] | Stale:
        """The user's hash and its tenant's: what runs now, and the states of `windows`. Raises RedisAway.

        Hashes that were built before `least_epoch` are stale.
        """
        run_id = self.lane.run_id or await self.lane.connect()
        of_tenant, of_user, built_users = _keys(tenant_id, user_id)
        answers = await asyncio.gather(
            self.lane.command("HMGET", of_tenant, "e", "r", "n", "c", *windows),
            self.lane.command("HMGET", of_user, "e", "c", *windows),
            self.lane.command("SISMEMBER", built_users, user_id.hex),
            self.lane.command("SCARD", built_users),
        )
        (epoch, run, users, active, *tenant), (user_epoch, user_active, *user), was_built, built = answers
        if epoch is None or run.decode() != run_id or users is None or int(epoch) < least_epoch:
            return Stale(int(epoch or 0), user_only=False)
        if user_epoch != epoch:
            return Stale(int(epoch), user_only=not was_built and built == int(users))
        return ScopeCounters.of(user_active, user), ScopeCounters.of(active, tenant)


def _verdict(answer: list[Any]) -> Reservation | Refused | Stale | Outdated | OtherTime:
    kind: bytes = answer[0]
    match kind:
        case b"ok":
            now_ms, id_hex, epoch, granted, lapsed = answer[1:6]
            return Reservation(now_ms, UUID(id_hex.decode()), int(epoch), granted, bool(lapsed), tuple(answer[6:]))
        case b"no":
            now_ms, cause, limit, ends_ms, worth_counting, lapsed, epoch = answer[1:]
            return Refused(
                now_ms,
                cause.decode(),
                limit - 1 if limit > 0 else None,
                limit == 0,
                ends_ms,
                bool(worth_counting),
                bool(lapsed),
                int(epoch),
            )
        case b"clock":
            return OtherTime(answer[1])
        case b"entitlement":
            return Outdated(int(answer[1]))
        case b"rebuild" | b"user":
            return Stale(int(answer[1]), user_only=kind == b"user")
        case _:
            raise AssertionError(f"admit.lua answered {kind!r}")
