"""Who asks: a request's API key, or the session of a browser that signed in with one.

A key travels in a header, which no other site can make a browser send. A session travels in a cookie, which the
browser adds by itself, so whatever changes something must come from our own pages: `Sec-Fetch-Site`, or an `Origin`
that is this host, and a request that has neither is refused. The cookie is also `SameSite=Strict` and `HttpOnly`.
"""

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from core.shares import OWNER
from core.tenancy.directory import Directory
from core.tenancy.principal import Forbidden, Principal

_SECURE_COOKIE = "__Host-naka"
"""The browser takes a cookie of this name only from https, for this very host and all its paths."""
_PLAIN_COOKIE = "naka_session"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class ForeignOrigin(Forbidden):
    """A browser's request that would change something, and does not come from a page of ours."""

    def __init__(self) -> None:
        super().__init__("this request does not come from a page of this server")


async def authenticate(directory: Directory, scope: Scope, *, fresh: bool = False) -> Principal:
    """The principal of a request, whose tenant the task works for from here on; its address until then.

    Raises Unauthenticated, ForeignOrigin, PoolFull, Unavailable.
    """
    OWNER.set(network_of(scope))
    key = key_of(scope)
    token = session_of(scope) if key is None else None
    if token is None:
        principal = await directory.authenticate(key, fresh=fresh)
    else:
        if scope["method"] not in _SAFE_METHODS:
            require_own_origin(scope)
        principal = await directory.authenticate_session(token, fresh=fresh)
    OWNER.set(principal.tenant_id)
    return principal


def credential_of(scope: Scope) -> int | None:
    """The key or the session's token that a request bears, as a number that says nothing of it; None without one."""
    found = key_of(scope) or session_of(scope)
    return None if found is None else hash(found)


def network_of(scope: Scope) -> str:
    """Who asks, before a key has said it: the address; an IPv6 one by its /64, which is one customer."""
    client = scope.get("client")
    try:
        address = ip_address(client[0] if client else "")
    except ValueError:
        return "unknown"
    return address.exploded[:19] if isinstance(address, IPv6Address) else str(address)


def key_of(scope: Scope) -> str | None:
    """The API key of a request: `Authorization: Bearer ...` or `x-api-key`."""
    headers = Headers(scope=scope)
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key")


def session_of(scope: Scope) -> str | None:
    """The session's token out of the cookies, if there is one that this scheme may carry."""
    cookies = cookie_parser("; ".join(Headers(scope=scope).getlist("cookie")))
    secure = cookies.get(_SECURE_COOKIE)
    return secure if secure is not None or scope["scheme"] == "https" else cookies.get(_PLAIN_COOKIE)


def require_own_origin(scope: Scope) -> None:
    """Raises ForeignOrigin, unless a page of this very origin sent the request."""
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    ours = site == "same-origin" if site is not None else origin is not None and _host(origin) == headers.get("host")
    if not ours:
        raise ForeignOrigin


def set_session(response: Response, token: str, *, secure: bool, ttl_s: int) -> None:
    """Hands the token to the browser, where no script can read it."""
    name = _SECURE_COOKIE if secure else _PLAIN_COOKIE
    response.set_cookie(name, token, max_age=ttl_s, path="/", secure=secure, httponly=True, samesite="strict")


def drop_session(response: Response) -> None:
    """Takes it away again."""
    for name, secure in ((_SECURE_COOKIE, True), (_PLAIN_COOKIE, False)):
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")


def _host(origin: str) -> str:
    return urlsplit(origin).netloc
