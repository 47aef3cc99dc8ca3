"""Ids: UUIDv7, minted from the clock that decided.

A request's id carries the millisecond of its grant (Redis's clock, or Postgres's in fallback), and that
millisecond fixes its windows, its day, its price and its partition. So ids here are made from a time that is
passed in, never from this process's own clock by default.

Layout (RFC 9562): 48 bits of milliseconds, version 7, 12 + 62 random bits.
"""

import secrets
from uuid import UUID

from core.clock import now_ms

_RANDOM_BITS = 74
_LOW_62 = (1 << 62) - 1


def uuid7(at_ms: int | None = None) -> UUID:
    """A new UUIDv7 of `at_ms` (milliseconds since 1970; this process's clock when none is given)."""
    if at_ms is None:
        at_ms = now_ms()
    random = secrets.randbits(_RANDOM_BITS)
    return UUID(int=(at_ms << 80) | (0x7 << 76) | ((random >> 62) << 64) | (0b10 << 62) | (random & _LOW_62))


def random_tail() -> str:
    """The 20 hex digits that follow the 12 of the milliseconds, for whoever mints the id elsewhere (the Lua script)."""
    return uuid7(0).hex[12:]


def uuid7_ms(value: UUID) -> int:
    """The millisecond that `value` was minted for."""
    return value.int >> 80


def uuid7_floor(at_ms: int) -> UUID:
    """The smallest id of `at_ms`: a bound for ranges over ids and for partitions."""
    return UUID(int=at_ms << 80)
