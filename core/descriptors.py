"""File descriptors: the limit of this process, raised to what it may be, and what the settings need of it.

A client's connection, an upstream call and a connection to a store each take one. A process that has none left resets
new clients without a word, so `naka serve` accepts no more connections than the limit leaves room for.
"""

import os
import resource

from core.settings import Settings, SettingsError

FEWEST = 256
"""A start with fewer is refused: the stores and the listener alone take about a hundred."""
_MOST = 1_048_576
"""Linux's own ceiling per process by default; a container's hard limit may be absurdly higher."""
_STORES = 16
_FILES = 64


def raise_limit() -> int:
    """Raises the soft limit to the hard one, as far as the system allows; the limit from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            return soft  # macOS: the hard limit says infinity, the kernel has its own maximum
        return wanted
    return _MOST if soft == resource.RLIM_INFINITY else soft


def require_enough(limit: int) -> None:
    """Raises SettingsError below `FEWEST`."""
    if limit < FEWEST:
        raise SettingsError(f"the limit of open files is {limit}, and at least {FEWEST} are needed: raise `ulimit -n`")


def needed(settings: Settings) -> int:
    """Descriptors for all connections, upstream calls and stores that the settings allow at once."""
    return settings.client_max_connections + settings.upstream_max_connections + _reserved(settings)


def connections_that_fit(settings: Settings, limit: int) -> int:
    """How many client connections to accept, so that upstream calls and stores always find a descriptor."""
    room = max(2, limit - _reserved(settings))
    upstream = min(settings.upstream_max_connections, room // 2)
    return min(settings.client_max_connections, room - upstream)


def is_exhausted(descriptor: int) -> bool:
    """Whether no descriptor is left: tries to copy this open one."""
    try:
        os.close(os.dup(descriptor))
    except OSError:
        return True
    return False


def _reserved(settings: Settings) -> int:
    return 2 * settings.database_pool_size + _STORES + _FILES
