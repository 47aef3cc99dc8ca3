"""The kinds of Redis that Naka does not work with, told from `INFO server`. Pure.

On a node of a cluster every key of another slot is refused, which would look like a Redis that is away: Postgres would
admit most tenants, at many times the cost, and nobody would be told.
"""

from collections.abc import Mapping
from typing import Any

_FIELDS = ("redis_mode", "server_mode")  # Redis's name for it, and Valkey's
_REFUSED = {
    "cluster": "a node of a Redis Cluster, which is not supported: use one server, or a primary with replicas",
    "sentinel": "a Redis Sentinel, which is not supported: name the primary, or a proxy that follows it",
}


def refused_mode(info: Mapping[str, Any]) -> str | None:
    """In words, for "this is ...", why this server cannot be used; None: it can. `info`: the fields of INFO server."""
    modes = (str(info.get(name, "")) for name in _FIELDS)
    return next((_REFUSED[mode] for mode in modes if mode in _REFUSED), None)
