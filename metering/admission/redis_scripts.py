"""The quota scripts in Redis: may a request start, and what do its windows count.

One hash per user and one per tenant, under the tenant's hash tag, so that a script finds all its keys in one slot. The
counters are a copy of what Postgres has and may be lost; the epoch tells when they were. Redis's clock is ahead by what
a test clock says. Redis unreachable or slow: `RedisUnavailable`.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from core.clock import offset_ms
from core.ids import random_tail
from metering.admission.redis_pipeline import RedisPipeline, load_script
from metering.quota.counters import ScopeCounters
from metering.quota.query import Answer, Mend, QuotaQuery, QuotaTerms, Refused, Retry

_LAYOUT = "naka:2"
"""The prefix of all keys. Its number is that of the layout of windows and holds, and changes with it, so that processes
of two versions do not read each other's numbers. Both may build counters of one tenant: each build moves its epoch in
Postgres, which then opens the grants of that one only, and after a few bounces admits the tenant itself."""


def tenant_key(tenant_id: UUID) -> str:
    """The key of a tenant's hash. The braces are the hash tag of Redis Cluster."""
    return f"{_LAYOUT}:{{{tenant_id.hex}}}"


def user_key(tenant_id: UUID, user_id: UUID) -> str:
    """The key of a user's hash, in its tenant's slot."""
    return f"{tenant_key(tenant_id)}:{user_id.hex}"


def built_users_key(tenant_id: UUID) -> str:
    """The key of the set of users whose hashes were built in the epoch of the tenant's hash, in its slot."""
    return f"{tenant_key(tenant_id)}:users"


def _keys(tenant_id: UUID, user_id: UUID) -> tuple[str, str, str]:
    return tenant_key(tenant_id), user_key(tenant_id, user_id), built_users_key(tenant_id)


class QuotaScripts:
    """The scripts as functions. One per process."""

    def __init__(self, pipeline: RedisPipeline) -> None:
        self.pipeline = pipeline
        self._admit = load_script("admit")
        self._settle = load_script("settle")
        self._build_tenant = load_script("build_tenant")
        self._build_user = load_script("build_user")
        self._expired_holds = load_script("expired_holds")

    async def admit(self, query: QuotaQuery, terms: QuotaTerms) -> Answer:
        """Checks every window of the user and the tenant, and takes the hold, in one step. Raises RedisUnavailable.

        A grant has a hold and no row yet: Postgres has to open it.
        """
        tenant_id, user_id = query.principal.tenant_id, query.principal.user_id
        question = msgspec.msgpack.encode(
            [
                user_id.hex,
                terms.day.name,
                terms.day.ends_ms,
                terms.period.name,
                terms.period.ends_ms,
                terms.from_ms,
                terms.until_ms,
                random_tail(),
                query.prompt_bound,
                terms.nano_usd(query.prompt_bound, query.further_output, query.web_searches),
                query.prompt_likely,
                terms.nano_usd(query.prompt_likely, query.further_output, query.web_searches),
                query.max_tokens,
                query.smallest_output,
                terms.output_rate,
                query.ttl_ms,
                query.timeline.read_epoch,
                offset_ms(),
                int(terms.resumes),
                query.web_searches,
                query.large_output,
                query.further_output,
            ]
        )
        keys = _keys(tenant_id, user_id)
        answer = await self.pipeline.call(self._admit, keys, question, terms.entitlement.packed, needs_run=True)
        return _answer_of(answer, query, terms)

    async def settle(self, tenant_id: UUID, user_id: UUID, request_id: UUID, counts: Sequence[int]) -> int:
        """Replaces the request's hold, where it still exists, by `counts` (nine). Raises RedisUnavailable.

        Returns how many of the two hashes had the hold.
        """
        keys = (tenant_key(tenant_id), user_key(tenant_id, user_id))
        packed = msgspec.msgpack.encode(list(counts))
        released: int = await self.pipeline.call(self._settle, keys, request_id.hex, packed)
        return released

    async def settle_all(self, requests: Iterable[tuple[UUID, UUID, UUID, Sequence[int]]]) -> int:
        """Settles many requests, each (tenant, user, request, counts), in one pipeline. Raises RedisUnavailable.

        Returns how many of them had a hold.
        """
        answers = await asyncio.gather(*(self.settle(*request) for request in requests))
        return sum(released > 0 for released in answers)

    async def build_tenant(self, tenant_id: UUID, epoch: int, run_id: str, fields: dict[str, Any]) -> bool:
        """Writes the tenant's hash of a new epoch. False when another process has built this or a newer one."""
        flat = [part for pair in fields.items() for part in pair]
        keys = (tenant_key(tenant_id), built_users_key(tenant_id))
        return bool(await self.pipeline.call(self._build_tenant, keys, epoch, run_id, *flat))

    async def build_user(self, tenant_id: UUID, user_id: UUID, epoch: int, run_id: str, fields: dict[str, Any]) -> bool:
        """Writes a user's hash if the tenant's is of this epoch and the user's was not built in it."""
        flat = [part for pair in fields.items() for part in pair]
        keys = _keys(tenant_id, user_id)
        return bool(await self.pipeline.call(self._build_user, keys, epoch, run_id, user_id.hex, *flat))

    async def expired_holds(self, key: str, again_ms: int) -> list[tuple[UUID, UUID]]:
        """The holds of a hash that are past their deadline: (request, user). They are reported again in `again_ms`."""
        flat = await self.pipeline.call(self._expired_holds, (key,), again_ms, offset_ms())
        return [(UUID(flat[i].decode()), UUID(flat[i + 1].decode())) for i in range(0, len(flat), 2)]

    async def epoch(self, tenant_id: UUID, run_id: str) -> int | None:
        """The epoch of the tenant's hash; None when there is none that was built in this run."""
        epoch, run = await self.pipeline.command("HMGET", tenant_key(tenant_id), "e", "r")
        return int(epoch) if epoch is not None and run.decode() == run_id else None

    async def now_ms(self) -> int:
        """Redis's clock, which decides the time of a grant."""
        seconds, micros = await self.pipeline.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000 + offset_ms()

    async def read(
        self, tenant_id: UUID, user_id: UUID, windows: Sequence[str], *, least_epoch: int = 0
    ) -> tuple[ScopeCounters, ScopeCounters] | Retry:
        """The counters of the user and of its tenant in `windows`. Raises RedisUnavailable.

        Hashes that were built before `least_epoch` are stale.
        """
        run_id = self.pipeline.run_id or await self.pipeline.connect()
        of_tenant, of_user, built_users = _keys(tenant_id, user_id)
        answers = await asyncio.gather(
            self.pipeline.command("HMGET", of_tenant, "e", "r", "n", "c", *windows),
            self.pipeline.command("HMGET", of_user, "e", "c", *windows),
            self.pipeline.command("SISMEMBER", built_users, user_id.hex),
            self.pipeline.command("SCARD", built_users),
        )
        (epoch, run, users, active, *tenant), (user_epoch, user_active, *user), was_built, built = answers
        if epoch is None or run.decode() != run_id or users is None or int(epoch) < least_epoch:
            return Retry(int(epoch or 0) + 1, Mend.TENANT)
        if user_epoch == epoch:
            return ScopeCounters.of(user_active, user), ScopeCounters.of(active, tenant)
        if not was_built and built == int(users):
            return Retry(int(epoch), Mend.USER)
        return Retry(int(epoch) + 1, Mend.TENANT)


def _answer_of(answer: list[Any], query: QuotaQuery, terms: QuotaTerms) -> Answer:
    kind: bytes = answer[0]
    match kind:
        case b"ok":
            now_ms, id_hex, epoch, granted, holds_expired = answer[1:6]
            return query.grant(
                terms,
                id=UUID(id_hex.decode()),
                epoch=int(epoch),
                now_ms=now_ms,
                output_tokens=granted,
                room=tuple(answer[6:]),
                holds_expired=bool(holds_expired),
            )
        case b"no":
            now_ms, cause, limit, ends_ms, worth_counting, holds_expired, epoch, used = answer[1:]
            return Refused(
                now_ms,
                cause.decode(),
                limit - 1 if limit > 0 else None,
                limit == 0,
                ends_ms,
                bool(worth_counting),
                bool(holds_expired),
                used,
                int(epoch),
            )
        case b"clock":
            return Retry(now_ms=answer[1])
        case b"entitlement":
            return Retry(int(answer[1]), Mend.ENTITLEMENT)
        case b"rebuild":
            return Retry(int(answer[1]) + 1, Mend.TENANT)
        case b"user":
            return Retry(int(answer[1]), Mend.USER)
        case _:
            raise AssertionError(f"admit.lua answered {kind!r}")
