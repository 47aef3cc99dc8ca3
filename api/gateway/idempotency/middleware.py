"""The middleware of `Idempotency-Key`, around the metered application. Pure ASGI.

Requests without the header pass by. With it, the first request of a key runs, and owns the run; others with the same
key follow it: they are authenticated afresh, and take no place at the provider and no quota. If the run ends with an
error, those that follow it get that error, and the next request runs anew. If its process dies, one of those that have
received nothing yet runs anew, and the rest follow that; those in the middle of an answer are cut off.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth.credentials import PRINCIPAL, key_of, session_of
from api.auth.identities import named_user
from api.gateway.codec import MeteredRoute
from api.gateway.idempotency.errors import restarted
from api.gateway.idempotency.event_ids import EventIds, Place, place_of
from api.gateway.idempotency.following import FollowedRuns
from api.gateway.idempotency.keys import Entry, entry_of, idempotency_key, new_run
from api.gateway.idempotency.recording import Recording
from api.gateway.idempotency.replay import AnswerBroken, Replay, RunDied
from api.gateway.idempotency.store import RunStore
from api.http.body import ClientLeft, InvalidBody, read_body
from api.http.problems import code_of, problem_response
from api.runtime import Runtime
from core.errors import Invalid, NakaError, Unavailable
from core.resilience.deadline import within
from core.tenancy.principal import Principal
from core.tenancy.principal import Scope as KeyScope
from metering.admission.redis_pipeline import RedisUnavailable

_WITH_IDS = "/chat"
"""The path whose events get ids."""
_WITH_NAMES = "/chat"
"""The beginning of the paths whose bodies may name the user."""
_LARGE_BYTES = 256 * 1024
"""Longer bodies are hashed outside the event loop."""
_TAKEOVERS = 10
"""How many runs a request may see die before it gives up."""


class _Named(msgspec.Struct):
    """The fields of a body that are read here."""

    user: str | None = None


@dataclass(slots=True)
class _Asked:
    """A request with a key. `name`: the user that its body names; `place`: where its reader stopped, if it resumes.

    `body`: as long as it may have to run.
    """

    entry: Entry
    principal: Principal
    name: str | None
    body: bytes
    resumes: bool
    place: Place | None

    def take_body(self) -> bytes:
        """Returns the body, which may be large, and lets go of it."""
        body, self.body = self.body, b""
        return body


class IdempotencyMiddleware:
    """`metered`: the routes on which the header counts, by (method, path)."""

    def __init__(
        self, app: ASGIApp, runtime: Runtime, store: RunStore, *, metered: Mapping[tuple[str, str], MeteredRoute]
    ) -> None:
        self._app = app
        self._metered = metered
        self._store = store
        self._followed = FollowedRuns(store, runtime.pools.followed_runs)
        self._followers = runtime.pools.followers
        self._identities = runtime.identities
        self._metrics = runtime.metrics
        self._refusals = runtime.metering.refusals
        self._deadline_s = runtime.settings.store_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs a request, lets it follow the run of its key, or passes it on."""
        route = self._metered.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        try:
            key = None if route is None else idempotency_key(scope)
            if route is None or key is None:
                asked = run = None
            else:
                asked = await self._read(scope, receive, key, route.max_bytes)
                run = await self._follow_until_mine(asked, scope, receive, send)
        except ClientLeft:
            return
        except AnswerBroken:
            raise
        except NakaError as error:
            self._count_refusal(error, scope.get(PRINCIPAL))
            await problem_response(error, scope)(scope, receive, send)
            return
        if asked is None:
            await self._app(scope, receive, send)
        elif run is not None:
            self._metrics.idempotent("run")
            is_chat = scope["path"] == _WITH_IDS
            recording = Recording(self._store, asked.entry, run, asked.take_body(), with_ids=is_chat)
            await recording.run(self._app, scope, receive, send)

    def _count_refusal(self, error: NakaError, principal: Principal | None) -> None:
        """Counts a refusal as the usage middleware does."""
        if isinstance(error, Invalid | InvalidBody):
            return
        self._metrics.refused(error)
        if principal is not None:
            self._refusals.note(principal.tenant_id, code_of(error))

    async def _read(self, scope: Scope, receive: Receive, key: bytes, max_bytes: int) -> _Asked:
        """Authenticates the caller and reads the request. Raises NakaErrors, ClientLeft."""
        principal = await self._authenticate(scope)
        body = await read_body(scope, receive, max_bytes=max_bytes)
        name = _name_in(body) if scope["path"].startswith(_WITH_NAMES) else None
        user = named_user(scope, name)
        find = partial(
            entry_of,
            key,
            key_of(scope) or session_of(scope) or "",
            scope,
            body,
            tenant_id=principal.tenant_id,
            user=principal.user_id.hex if user is None else f"name {user}",
        )
        entry = find() if len(body) <= _LARGE_BYTES else await asyncio.to_thread(find)
        event_id = Headers(scope=scope).get("last-event-id", "") if scope["path"] == _WITH_IDS else ""
        return _Asked(entry, principal, name, body, bool(event_id), place_of(event_id))

    async def _authenticate(self, scope: Scope) -> Principal:
        async with within(self._deadline_s):
            principal = await self._identities.principal_of(scope)
            principal.require_any(KeyScope.CHAT, KeyScope.CHAT_AS_USER)
            return principal

    async def _check_again(self, asked: _Asked, scope: Scope) -> None:
        """Checks the caller and the user that it names as Postgres has them now. Raises as authentication does."""
        async with within(self._deadline_s):
            principal = await self._identities.principal_of(scope, fresh=True)
            principal.require_any(KeyScope.CHAT, KeyScope.CHAT_AS_USER)
            await self._identities.acting_for(scope, principal, asked.name, creates=False, fresh=True)

    async def _follow_until_mine(self, asked: _Asked, scope: Scope, receive: Receive, send: Send) -> str | None:
        """Returns the run that this request owns; None once it has the answer of another. Raises NakaErrors."""
        for _ in range(_TAKEOVERS):
            mine = new_run()
            owner = await self._claim(asked, mine)
            if owner == mine:
                return mine
            await self._check_again(asked, scope)  # no row is opened, which would check it
            with suppress(RunDied):
                await self._follow(asked, owner, scope, receive, send)
                return None
        raise Unavailable("The run of this Idempotency-Key was interrupted several times. Try again.")

    async def _claim(self, asked: _Asked, mine: str) -> str:
        """Returns the run that owns the key. A request that resumes starts none. Raises NakaErrors."""
        try:
            owner = await self._store.claim(asked.entry, "" if asked.resumes else mine)
        except RedisUnavailable as error:
            raise Unavailable(
                "Idempotency-Key can't be honoured now. Try again, or send the request without it."
            ) from error
        if owner is None or (asked.resumes and (asked.place is None or asked.place.run != owner)):
            raise restarted()
        return owner

    async def _follow(self, asked: _Asked, run: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer of a run. Raises RunDied, NakaErrors."""
        tenant_id = asked.principal.tenant_id
        ids = None
        if scope["path"] == _WITH_IDS:
            ids = EventIds(run, asked.place.offset if asked.place is not None else 0)
        with self._followers.take(tenant_id), self._followed.follow(asked.entry, run, tenant_id) as (followed, news):
            await Replay(followed, news, scope, send, ids).run(receive)
        self._metrics.idempotent("replayed")


def _name_in(body: bytes) -> str | None:
    """Returns the user that a body of `/chat` names. A body that cannot be read names none, and is refused later."""
    try:
        return msgspec.json.decode(body, type=_Named).user
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
