"""The public keys of issuers, fetched from their JWKS URLs and cached per issuer and process.

Keys older than `refresh_s` are fetched again while they are used, so a rotated or removed key is noticed without a
wait. An unknown key id fetches at once, at most so often an issuer that invented ids cost nothing. While the server is
away the last keys stay valid for `keep_s`; then, and for an unknown id meanwhile, `KeysUnavailable`.

The server is hostile in doubt: only public addresses in production, no redirect, a bound on bytes and time, and each
issuer has a fetch of its own, with name lookups in threads that nothing else needs. So one issuer delays no other.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import aiohttp

from core.errors import Unavailable
from core.identity.verification_keys import NotAKeySet, VerificationKey, find_key, parse_jwks
from core.logs import get_logger
from core.network.routes import Routes, TooLong
from core.resilience.backoff import Backoff
from core.resilience.deadline import unbounded
from core.resilience.rates import Rate, RateLimited
from core.resilience.turns import Turns
from core.settings import Settings
from core.tasks import end

MAX_BYTES = 64_000
FETCHES_PER_MINUTE = 6
"""Of one issuer, with a burst of ten."""
_MAX_WAITING = 200
"""Requests of one issuer that wait for its fetch."""
_MAX_ISSUERS = 10_000
"""Issuers whose keys are kept; the one unused for longest is dropped."""
_FETCHES_PER_TENANT = 4
"""At once. The others wait for their turn."""
_LOOKUP_THREADS = 64
_BACKOFF = Backoff(1, 60)
_OK = 200
_ACCEPT = {"accept": "application/jwk-set+json, application/json", "user-agent": "naka"}

log = get_logger(__name__)


class KeysUnavailable(Unavailable):
    """The issuer's keys cannot be fetched at present, so its tokens cannot be checked."""

    def __init__(self, retry_after_s: int = 1) -> None:
        super().__init__("The keys of this token's issuer cannot be fetched. Try again.", retry_after_s=retry_after_s)


class UnknownKey(Exception):
    """The issuer has no key with this id for this algorithm."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """The JWKS URL of an issuer. It never changes: another URL is another issuer."""

    tenant_id: UUID
    issuer_id: UUID
    url: str


@dataclass(slots=True)
class _Held:
    """The keys of one issuer. Times are monotonic; `fetched_s` is of the last success."""

    keys: Sequence[VerificationKey] = ()
    fetched_s: float = float("-inf")
    failures: int = 0
    retry_s: float = float("-inf")
    task: asyncio.Task[None] | None = None
    waiting: int = 0


class JwksCache:
    """The keys of every issuer that was asked for. One per process."""

    def __init__(self, settings: Settings) -> None:
        self._proxies = settings.proxies
        self._confined = settings.is_production
        self._refresh_s = settings.jwks_refresh_s
        self._keep_s = max(settings.jwks_keep_s, settings.jwks_refresh_s)
        self._timeout_s = settings.jwks_timeout_s
        self._held: OrderedDict[UUID, _Held] = OrderedDict()
        self._rate = Rate(FETCHES_PER_MINUTE)
        self._turns = Turns("jwks", _FETCHES_PER_TENANT, wait_s=settings.jwks_timeout_s)
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="jwks")

    async def find(self, source: KeySource, kid: str | None, algorithm: str) -> VerificationKey:
        """Returns a key, fetched if it must be. Raises UnknownKey, KeysUnavailable, RateLimited."""
        held = self._of(source)
        found = self._known(source, held, kid, algorithm)
        if found is not None:
            return found
        if held.task is None:
            self._require_fetch(source, held)
        await self._wait(held)
        found = find_key(self._valid(held), kid, algorithm)
        if found is not None:
            return found
        if held.failures or held.task is not None:
            raise KeysUnavailable(_wait_s(held))
        raise UnknownKey

    def peek(self, source: KeySource, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Returns a key that is known, without a wait. Fetches old keys again in the background."""
        return self._known(source, self._of(source), kid, algorithm)

    async def stop(self) -> None:
        """Ends the fetches in progress."""
        for held in self._held.values():
            if held.task is not None:
                await end(held.task)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _of(self, source: KeySource) -> _Held:
        held = self._held.get(source.issuer_id)
        if held is None:
            held = self._held[source.issuer_id] = _Held()
            self._drop_unused()
        self._held.move_to_end(source.issuer_id)
        return held

    def _drop_unused(self) -> None:
        while len(self._held) > _MAX_ISSUERS:
            _, dropped = self._held.popitem(last=False)
            if dropped.task is not None:
                dropped.task.cancel()

    def _known(self, source: KeySource, held: _Held, kid: str | None, algorithm: str) -> VerificationKey | None:
        found = find_key(self._valid(held), kid, algorithm)
        now_s = time.monotonic()
        if found is not None and held.task is None and now_s >= max(held.fetched_s + self._refresh_s, held.retry_s):
            self._start(source, held)
        return found

    def _valid(self, held: _Held) -> Sequence[VerificationKey]:
        return held.keys if time.monotonic() < held.fetched_s + self._keep_s else ()

    def _require_fetch(self, source: KeySource, held: _Held) -> None:
        """Starts a fetch. Raises KeysUnavailable after a failure, RateLimited after too many fetches."""
        if time.monotonic() < held.retry_s:
            raise KeysUnavailable(_wait_s(held))
        try:
            self._rate.spend(source.issuer_id, "Tokens of this issuer name too many unknown keys.")
        except RateLimited as error:
            log.warning("jwks_unknown_keys", tenant_id=str(source.tenant_id), issuer_id=str(source.issuer_id))
            raise error from None
        self._start(source, held)

    async def _wait(self, held: _Held) -> None:
        """Waits for the fetch, which goes on if this request leaves. Raises KeysUnavailable when too many wait."""
        if held.task is None:
            return
        if held.waiting >= _MAX_WAITING:
            raise KeysUnavailable
        held.waiting += 1
        try:
            await asyncio.wait({held.task}, timeout=2 * self._timeout_s)
        finally:
            held.waiting -= 1

    def _start(self, source: KeySource, held: _Held) -> None:
        with unbounded():  # requests with later deadlines wait for it, too
            held.task = asyncio.create_task(self._refresh(source, held), name="jwks")

    async def _refresh(self, source: KeySource, held: _Held) -> None:
        """Fetches and holds the keys. A failure is logged, and the next attempt waits longer."""
        try:
            leave = await self._turns.take(source.tenant_id)
            try:
                async with asyncio.timeout(self._timeout_s):
                    keys = await self._fetch(source.url)
            finally:
                leave()
        except (NotAKeySet, TooLong, Unavailable, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            held.retry_s = time.monotonic() + _BACKOFF.wait_s(held.failures)
            held.failures += 1
            log.warning(
                "jwks_not_fetched",
                tenant_id=str(source.tenant_id),
                issuer_id=str(source.issuer_id),
                error=type(error).__name__,
                failures=held.failures,
            )
        else:
            same = {each: each for each in held.keys}
            held.keys = [same.get(each, each) for each in keys]  # an unchanged key stays the same object
            held.fetched_s, held.failures, held.retry_s = time.monotonic(), 0, float("-inf")
        finally:
            held.task = None

    async def _fetch(self, url: str) -> list[VerificationKey]:
        """Raises NotAKeySet, and what `Routes.get` raises."""
        routes = Routes(self._proxies, self._timeout_s, limit=1, confined=self._confined, threads=self._threads)
        async with routes:
            status, body = await routes.get(url, _ACCEPT, max_bytes=MAX_BYTES)
        if status != _OK:
            raise NotAKeySet
        return parse_jwks(body)


def _wait_s(held: _Held) -> int:
    return max(1, math.ceil(min(max(held.retry_s - time.monotonic(), 0), _BACKOFF.longest_s)))
