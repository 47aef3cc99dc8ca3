"""Sign-ins in progress: what has to be known when the provider sends somebody back.

Redis keeps a record under the SHA-256 of `state`, for `LIFE_S`, and gives it out once: a replayed answer finds none. It
names the browser by the hash of a cookie that only the browser has, so nobody can be signed in with somebody else's
answer (login CSRF). The cookie is `lax`, since the provider's redirect comes from another site. Redis down:
Unavailable; keys still sign in.
"""

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from api.auth.credentials import is_secure
from api.auth.oidc import Secrets
from api.auth.sign_in_throttle import TooManyAttempts
from api.http.client_address import network_of
from core.errors import Unavailable

LIFE_S = 600
_SECURE_COOKIE, _PLAIN_COOKIE = "__Host-naka-sign-in", "naka_sign_in"
_TOKEN_LENGTH = 43
_REDIS_S = 2.0
_STARTS = 60
"""Of one network in `_STARTS_S`: each is a record in Redis."""
_STARTS_S = 60


@dataclass(frozen=True, slots=True)
class Started:
    """A sign-in in progress. `next_path`: a page of this site. `previous`: the hash of the session to end, in hex."""

    nonce: str
    verifier: str
    redirect_uri: str
    browser: str
    next_path: str = ""
    invited: str = ""
    previous: str = ""


class SignInState:
    """The records of one Redis."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def admit(self, address: str) -> None:
        """Counts a start. Raises TooManyAttempts, Unavailable."""
        key = f"naka:sign-in:starts:{network_of(address)}"
        try:
            async with asyncio.timeout(_REDIS_S):
                async with self._redis.pipeline() as pipeline:
                    pipeline.incr(key)
                    pipeline.expire(key, _STARTS_S, nx=True)  # each time: a count without an end would lock out
                    count, _ = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise _no_redis() from error
        if count > _STARTS:
            raise TooManyAttempts(_STARTS_S)

    async def keep(self, state: str, started: Started) -> None:
        """Keeps a record until it is taken, or expires. Raises Unavailable."""
        try:
            async with asyncio.timeout(_REDIS_S):
                await self._redis.set(_name(state), msgspec.json.encode(started), ex=LIFE_S)
        except (RedisError, OSError) as error:
            raise _no_redis() from error

    async def take(self, state: str, browser: str | None) -> Started | None:
        """The record of a state that this browser began, once; else None. Raises Unavailable."""
        try:
            async with asyncio.timeout(_REDIS_S):
                found = await self._redis.getdel(_name(state))
        except (RedisError, OSError) as error:
            raise _no_redis() from error
        if found is None or browser is None:
            return None
        started = msgspec.json.decode(found, type=Started)
        return started if hmac.compare_digest(started.browser, _hashed(browser)) else None


def mark_browser(response: Response, scope: Scope, token: str) -> None:
    """Gives the browser the cookie by which it is known when it comes back."""
    secure = is_secure(scope)
    name = _SECURE_COOKIE if secure else _PLAIN_COOKIE
    response.set_cookie(name, token, max_age=LIFE_S, path="/", secure=secure, httponly=True, samesite="lax")


def unmark_browser(response: Response, scope: Scope) -> None:
    """Deletes the cookie."""
    secure = is_secure(scope)
    name = _SECURE_COOKIE if secure else _PLAIN_COOKIE
    response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")


def browser_of(scope: Scope) -> str | None:
    """The token of the cookie that counts on this site; None without one."""
    cookies = cookie_parser("; ".join(Headers(scope=scope).getlist("cookie")))
    return cookies.get(_SECURE_COOKIE if is_secure(scope) else _PLAIN_COOKIE)


def new_browser(known: str | None) -> tuple[str, str]:
    """A token for the cookie, and its hash for the record; the known one, for a second sign-in in another tab."""
    token = known if known and len(known) == _TOKEN_LENGTH else secrets.token_urlsafe(32)
    return token, _hashed(token)


def secrets_of(state: str, started: Started) -> Secrets:
    """The secrets of a record."""
    return Secrets(state, started.nonce, started.verifier)


def _name(state: str) -> str:
    return f"naka:sign-in:{_hashed(state)}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _no_redis() -> Unavailable:
    return Unavailable("Signing in there is not possible at the moment. Try again, or sign in with a key.")
