"""Validation of settings that are addresses. Pure. Error messages show no value: a URL may hold a password."""

from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIS = frozenset({"redis", "rediss", "unix"})


def checked_redis_url(url: str) -> str:
    """Returns the URL of a single Redis server. Raises ValueError, also for Sentinel."""
    if not url:
        return url
    scheme, has_address, _ = url.partition("://")
    if "sentinel" in scheme.lower():
        raise ValueError("Redis Sentinel is not supported: name the primary, or a proxy that follows it, as redis://")
    if not has_address or scheme.lower() not in _REDIS:
        raise ValueError("it is not a URL of the form redis://host:port/0, rediss:// or unix://")
    parts = _parts(url)
    database = parts.path.strip("/")
    if scheme.lower() == "unix":
        if not parts.path:
            raise ValueError("it names no socket")
    elif "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("it names several servers; Naka uses one")
    elif not parts.hostname or (database and not (database.isascii() and database.isdigit())):
        raise ValueError("it is not a URL of the form redis://host:port/0: its database is a number")
    return url


def normal_origin(origin: str) -> str:
    """Returns the origin as browsers send it: lower case, no default port, no slash. Raises ValueError."""
    if origin == "*":
        return origin
    parts = _parts(origin.lower())
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("an origin is of the form https://app.example.com")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("an origin has a scheme, a host and a port, and nothing else")
    if "*" in parts.netloc:
        raise ValueError("an origin is named in full; * alone allows every origin")
    try:
        host = parts.hostname.encode("idna").decode() if not parts.hostname.isascii() else parts.hostname
    except UnicodeError:
        raise ValueError("the host of an origin is not a name") from None
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    return parts
