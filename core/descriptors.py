"""File descriptors: raising this process's limit, and the number that the settings need.

A process without a free descriptor resets new connections and reports nothing, so `naka serve` accepts only as many
connections as the limit leaves room for.
"""

import os
import resource

from core.settings import Settings, SettingsError

FEWEST = 256
"""The minimum for a start: stores and listener alone take about a hundred."""
_MOST = 1_048_576
"""Linux's default ceiling per process; a container's hard limit may be far higher."""
_STORES = 16
_FILES = 64


def raise_limit() -> int:
    """Raises the soft limit to the hard one, as far as the system allows, and returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            return soft  # macOS: the hard limit is infinity, but the kernel has a lower maximum
        return wanted
    return _MOST if soft == resource.RLIM_INFINITY else soft


def require_enough(limit: int) -> None:
    """Raises SettingsError below `FEWEST`."""
    if limit < FEWEST:
        raise SettingsError(f"the limit of open files is {limit}; at least {FEWEST} are required: raise `ulimit -n`")


def descriptors_needed(settings: Settings) -> int:
    """Returns the descriptors for all client, upstream and store connections that the settings allow."""
    return settings.client_max_connections + settings.upstream_max_connections + _reserved(settings)


def connections_that_fit(settings: Settings, limit: int) -> int:
    """Returns the client connections to accept, leaving descriptors for upstream calls and stores."""
    room = max(2, limit - _reserved(settings))
    upstream = min(settings.upstream_max_connections, room // 2)
    return min(settings.client_max_connections, room - upstream)


def is_exhausted(descriptor: int) -> bool:
    """Whether no descriptor is free, by trying to duplicate this open one."""
    try:
        os.close(os.dup(descriptor))
    except OSError:
        return True
    return False


def _reserved(settings: Settings) -> int:
    return 2 * settings.database_pool_size + _STORES + _FILES
