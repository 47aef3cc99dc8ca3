"""The proxy of a URL by HTTPS_PROXY, HTTP_PROXY and NO_PROXY, interpreted as curl does. Pure.

A client asks once, when it is created. Localhost and loopback addresses never use a proxy: simulators run there.
"""

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy of https URLs, of http URLs, and the hosts that bypass them. Empty: none."""

    https: str = field(default="", repr=False)
    http: str = field(default="", repr=False)
    bypassed: str = ""

    def of(self, url: str) -> str | None:
        """Returns the proxy of this URL; None for a direct connection."""
        parts = urlsplit(url)
        proxy = {"https": self.https, "http": self.http}.get(parts.scheme, "")
        host = (parts.hostname or "").rstrip(".")
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
        if not proxy or not host or _is_this_machine(host):
            return None
        entries = (entry.strip().lower() for entry in self.bypassed.split(","))
        return None if any(_bypasses(entry, host, port) for entry in entries if entry) else proxy


def checked_proxy(url: str) -> str:
    """Returns a proxy's URL with its scheme. Raises ValueError without the value, which may hold a password."""
    if not url:
        return url
    url = url if "://" in url else f"http://{url}"
    if not url.startswith(_SCHEMES):
        raise ValueError("a proxy is an http:// or https:// URL; SOCKS is not supported")
    try:
        is_whole = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError("it is not a URL of the form http://proxy:3128")
    return url


def _bypasses(entry: str, host: str, port: int) -> bool:
    """Whether an entry matches: `*`, a domain with its subdomains, an address or a network, optionally with a port."""
    if entry == "*":
        return True
    name, _, wanted = entry.rpartition(":")
    if name and wanted.isdigit() and (":" not in name or name.startswith("[")):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").lstrip(".")
    address = _address(host)
    if address is None:
        return host == entry or host.endswith(f".{entry}")
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
