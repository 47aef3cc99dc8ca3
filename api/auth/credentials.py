"""The credentials of a request: its API key or token, or the session cookie of a browser that signed in.

No other site can make a browser send the key's header. The browser adds the cookie itself, so a request that changes
something needs `Sec-Fetch-Site: same-origin`, or else an `Origin` that is this host (CSRF). On https only the `__Host-`
cookie counts, because a sibling host can set the other. Postgres down: `Unavailable`.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from core.tenancy.principal import Forbidden, Unauthenticated

PRINCIPAL = "naka.principal"
"""The scope key of the authenticated principal, for the access log."""
SECURE = "naka.secure"
"""The scope key that is true when the site is https, even if a proxy sends plain HTTP to this server."""
_SECURE_COOKIE = "__Host-naka"
"""Browsers accept a `__Host-` cookie only over https, for this host and all its paths."""
_PLAIN_COOKIE = "naka_session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class UnreadableKey(Unauthenticated):
    """A key was sent in a form that cannot be read."""


class ForeignOrigin(Forbidden):
    """A request with a session cookie would change something and does not come from our own pages."""

    def __init__(self) -> None:
        super().__init__("This request does not come from a page of this server.")


def credential_of(scope: Scope) -> int | None:
    """Returns a hash of the request's key or session token; None without one."""
    found = key_of(scope) or session_of(scope)
    return None if found is None else hash(found)


def key_of(scope: Scope) -> str | None:
    """Returns the API key of `Authorization: Bearer ...` or `x-api-key`; None without one. Raises UnreadableKey."""
    headers = Headers(scope=scope)
    sent = headers.getlist("x-api-key")
    for value in headers.getlist("authorization"):
        scheme, *credentials = value.split(maxsplit=1)[:2] or [""]
        if scheme.lower() == "bearer":
            sent.append(credentials[0] if credentials else "")
    keys = {as_typed(value) for value in sent}
    if len(keys) > 1:
        raise UnreadableKey("The request has two different API keys (Authorization, x-api-key). Send one.")
    return read_key(keys.pop()) if keys else None


def read_key(text: str) -> str:
    """Returns the key without surrounding white space or invisible characters. Raises UnreadableKey."""
    if text and text.isascii() and text.isprintable() and " " not in text:
        return text  # a token has hundreds of characters, which the set below would visit one by one
    invisible = "".join({char for char in text if char.isspace() or not char.isprintable()})
    key = text.strip(invisible)
    if not key:
        raise UnreadableKey("The API key is empty.")
    if any(char in invisible for char in key):
        raise UnreadableKey("The API key contains white space or an invisible character. Copy it again.")
    return key


def as_typed(value: str) -> str:
    """Decodes a header value that the server read as Latin-1 and the client sent as UTF-8."""
    try:
        return value.encode("latin-1").decode().strip()
    except UnicodeError:
        return value.strip()


def is_secure(scope: Scope) -> bool:
    """Whether the site is https, by the SECURE flag or the request's scheme."""
    return bool(scope.get(SECURE)) or scope["scheme"] in {"https", "wss"}


def session_of(scope: Scope) -> str | None:
    """Returns the session token of the cookie that counts on this site; None without one."""
    cookies = cookie_parser("; ".join(Headers(scope=scope).getlist("cookie")))
    return cookies.get(_SECURE_COOKIE if is_secure(scope) else _PLAIN_COOKIE)


def require_own_origin(scope: Scope) -> None:
    """Raises ForeignOrigin unless a page of this origin sent the request."""
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    ours = site == "same-origin"
    if site is None and origin is not None:
        ours = urlsplit(origin).netloc == headers.get("host")
    if not ours:
        raise ForeignOrigin


def origin_of(scope: Scope) -> str | None:
    """Returns the origin of the page that sent the request; None of no page. Browsers leave out their own on a GET."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None and headers.get("sec-fetch-site") == "same-origin":
        return f"{'https' if is_secure(scope) else 'http'}://{headers.get('host', '')}"
    return origin


def set_session(response: Response, token: str, *, secure: bool, ttl_s: int) -> None:
    """Sets the session cookie, unreadable to scripts."""
    name = _SECURE_COOKIE if secure else _PLAIN_COOKIE
    response.set_cookie(name, token, max_age=ttl_s, path="/", secure=secure, httponly=True, samesite="strict")


def drop_session(response: Response) -> None:
    """Deletes the session cookie."""
    for name, secure in ((_SECURE_COOKIE, True), (_PLAIN_COOKIE, False)):
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")
