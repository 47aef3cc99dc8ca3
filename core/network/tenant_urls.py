"""The URLs that a tenant may have called: its endpoint for alerts, the keys of its issuer.

In production only https to a public address. The URL is parsed by the library that calls it, so that both read it
alike. `core.network.public_addresses` checks the addresses of its name at the call.
"""

import re

from yarl import URL

from core.errors import Invalid
from core.network.public_addresses import is_public, literal

MAX_URL = 500
_AUTHORITY_ENDS = re.compile(r"[/?#]")
_HTTPS = 443
_UNPRIVILEGED = 1024
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".onion")


def checked_url(url: str, *, production: bool, name: str = "the endpoint") -> str:
    """The URL, if it is allowed. `name`: what the URL is of, for the message. Raises Invalid."""
    try:
        parts = URL(url)
        host, port = parts.host, parts.port
    except ValueError as error:
        raise Invalid("not a valid URL") from error
    if parts.scheme not in {"http", "https"} or not host or not port or len(url) > MAX_URL or not url.isprintable():
        raise Invalid(f"{name} must be an http or https URL")
    authority = _AUTHORITY_ENDS.split(url.partition("//")[2], maxsplit=1)[0]
    if "@" in authority or "%" in authority or "#" in url:
        raise Invalid(f"{name}'s URL must not contain a user, password or fragment")
    if production and parts.scheme != "https":
        raise Invalid(f"{name} must use https")
    if production and port != _HTTPS and port < _UNPRIVILEGED:
        raise Invalid(f"{name}'s port must be 443, or 1024 or above")
    if production and not _may_be_public(host):
        raise Invalid(f"{name} must have a public address")
    return url


def _may_be_public(host: str) -> bool:
    """Whether a host is a public address, or a name that may have one; the call checks its addresses."""
    address = literal(host)
    if address is not None:
        return is_public(address)
    name = host.lower().removesuffix(".")
    return "." in name and not name.endswith(_PRIVATE_NAMES)
