"""Who asks: a request's API key, or the session of a browser that signed in with one.

A key travels in a header, which no other site can make a browser send. A session travels in a cookie, which the
browser adds by itself, so whatever changes something must come from our own pages: `Sec-Fetch-Site`, or an `Origin`
that is this host, and a request that has neither is refused. The cookie is also `SameSite=Strict` and `HttpOnly`.
On https its name has the `__Host-` prefix, and no other name counts there: a neighbouring host can set the other one.

A key that was copied with white space around it is read without it. What else is wrong with the way a key was sent is
refused in words that say so, since "a valid API key is needed" sends its owner looking in the wrong place.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from api.http.client_address import client_address, network_of
from core.resilience.shares import OWNER
from core.tenancy.directory import Directory
from core.tenancy.keys import visible_prefix
from core.tenancy.principal import Forbidden, Principal, Unauthenticated

PRINCIPAL = "naka.principal"
"""Who asks, on the scope once it is known: for the access log."""
SECURE = "naka.secure"
"""On the scope where the site is https though this server may hear plain HTTP, from the proxy before it."""
_SECURE_COOKIE = "__Host-naka"
"""The browser takes a cookie of this name only from https, for this very host and all its paths."""
_PLAIN_COOKIE = "naka_session"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class UnreadableKey(Unauthenticated):
    """A key was sent, but not so that it can be read."""


class ForeignOrigin(Forbidden):
    """A browser's request that would change something, and does not come from a page of ours."""

    def __init__(self) -> None:
        super().__init__("this request does not come from a page of this server")


async def authenticate(directory: Directory, scope: Scope, *, fresh: bool = False) -> Principal:
    """The principal of a request, put on the scope for the log. The task works for its tenant from here on.

    Until the tenant is known it works for the caller's network. Raises Unauthenticated, ForeignOrigin, Unavailable.
    """
    network = network_of(client_address(scope))
    OWNER.set(network)
    key = token = None
    try:
        key = key_of(scope)
        token = session_of(scope) if key is None else None
        if token is None:
            principal = await directory.authenticate(key, fresh=fresh)
        else:
            if scope["method"] not in _SAFE_METHODS:
                require_own_origin(scope)
            principal = await directory.authenticate_session(token, fresh=fresh)
    except Unauthenticated as error:
        if key is not None or token is not None or isinstance(error, UnreadableKey):
            directory.traces.failed(network, visible_prefix(key or ""))
        raise
    scope[PRINCIPAL] = principal
    OWNER.set(principal.tenant_id)
    return principal


def credential_of(scope: Scope) -> int | None:
    """The key or the session's token that a request bears, as a number that says nothing of it; None without one."""
    found = key_of(scope) or session_of(scope)
    return None if found is None else hash(found)


def key_of(scope: Scope) -> str | None:
    """The API key of a request: `Authorization: Bearer ...` or `x-api-key`. Raises UnreadableKey."""
    headers = Headers(scope=scope)
    sent = headers.getlist("x-api-key")
    for value in headers.getlist("authorization"):
        scheme, *credentials = value.split(maxsplit=1)[:2] or [""]
        if scheme.lower() == "bearer":
            sent.append(credentials[0] if credentials else "")
    keys = {_as_typed(value) for value in sent}
    if len(keys) > 1:
        raise UnreadableKey("two different keys came with this request (Authorization, x-api-key): send one")
    return read_key(keys.pop()) if keys else None


def read_key(text: str) -> str:
    """A key without what surrounds it when it is copied. Raises UnreadableKey."""
    invisible = "".join({char for char in text if char.isspace() or not char.isprintable()})
    key = text.strip(invisible)
    if not key:
        raise UnreadableKey("the API key is empty")
    if any(char in invisible for char in key):
        raise UnreadableKey("there is white space, or an invisible character, within the API key: copy it again")
    return key


def _as_typed(value: str) -> str:
    """A header is Latin-1 to the server; what a client put into it was UTF-8."""
    try:
        return value.encode("latin-1").decode().strip()
    except UnicodeError:
        return value.strip()


def is_secure(scope: Scope) -> bool:
    """Whether the site is https: by the setting that the outermost layer knows, or by this request."""
    return bool(scope.get(SECURE)) or scope["scheme"] in {"https", "wss"}


def session_of(scope: Scope) -> str | None:
    """The session's token out of the one cookie that counts on this site."""
    cookies = cookie_parser("; ".join(Headers(scope=scope).getlist("cookie")))
    return cookies.get(_SECURE_COOKIE if is_secure(scope) else _PLAIN_COOKIE)


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
