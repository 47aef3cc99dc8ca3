"""Detection of unsupported Redis modes from `INFO server`. Pure.

A cluster node refuses keys of other slots, which would look like a Redis outage: Postgres would admit most tenants.
"""

from collections.abc import Mapping
from typing import Any

_FIELDS = ("redis_mode", "server_mode")  # Redis's name for it, and Valkey's
_REFUSED = {
    "cluster": "a node of a Redis Cluster, which is not supported: use one server, or a primary with replicas",
    "sentinel": "a Redis Sentinel, which is not supported: name the primary, or a proxy that follows it",
}


def refused_mode(info: Mapping[str, Any]) -> str | None:
    """Returns why the server cannot be used, to follow "this is"; None if it can. `info`: the fields of INFO server."""
    modes = (str(info.get(name, "")) for name in _FIELDS)
    return next((_REFUSED[mode] for mode in modes if mode in _REFUSED), None)
