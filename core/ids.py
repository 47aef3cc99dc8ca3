"""UUIDv7 ids.

A request's id contains the millisecond of its grant, by the clock of Redis (of Postgres in fallback), which fixes its
windows, day, price and partition. Layout (RFC 9562): 48 bits of milliseconds, version 7, 12 + 62 random bits.
"""

import secrets
from uuid import UUID

from core.clock import now_ms

_RANDOM_BITS = 74
_LOW_62 = (1 << 62) - 1


def uuid7(at_ms: int | None = None) -> UUID:
    """Returns a new UUIDv7 of `at_ms`, milliseconds since 1970; by default of this process's clock."""
    if at_ms is None:
        at_ms = now_ms()
    random = secrets.randbits(_RANDOM_BITS)
    return UUID(int=(at_ms << 80) | (0x7 << 76) | ((random >> 62) << 64) | (0b10 << 62) | (random & _LOW_62))


def random_tail() -> str:
    """Returns the last 20 hex digits of an id whose milliseconds another clock supplies (the Lua script)."""
    return uuid7(0).hex[12:]


def uuid7_ms(value: UUID) -> int:
    """Returns the millisecond of the id."""
    return value.int >> 80


def uuid7_floor(at_ms: int) -> UUID:
    """Returns the smallest id of `at_ms`: a bound for id ranges and partitions."""
    return UUID(int=at_ms << 80)
