"""Windows and holds, and their encoding in Redis. Pure.

A window is a vector: the nine used counts, and five numbers of what running requests hold. In Redis it is one field of
a hash; Postgres adds up the same numbers from its rows (`metering.admission.snapshot`). The decision takes either.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from metering.counts import COUNT_COLUMNS

NO_COUNTS = (0,) * len(COUNT_COLUMNS)
HELD = ("held_requests", "held_prompt", "held_output", "held_web_searches", "held_nano_usd")
"""The amounts of a hold, in the order of `WindowState.held` and `Hold.amounts`."""
_WINDOW = struct.Struct(f">{len(NO_COUNTS) + len(HELD)}d")
_HOLD = struct.Struct(">6d")


@dataclass(frozen=True, slots=True)
class WindowState:
    """The used counts of a window (`metering.counts`), and what is held in it (`HELD`)."""

    used: tuple[int, ...] = NO_COUNTS
    held: tuple[int, ...] = (0,) * len(HELD)

    def pack(self) -> bytes:
        """Encodes the field."""
        return _WINDOW.pack(*self.used, *self.held)

    @classmethod
    def unpack(cls, packed: bytes | None) -> "WindowState":
        """Decodes a field; a missing window is empty."""
        if packed is None:
            return cls()
        numbers = tuple(int(number) for number in _WINDOW.unpack(packed))
        return cls(numbers[: len(NO_COUNTS)], numbers[len(NO_COUNTS) :])

    def with_hold(self, amounts: Sequence[int]) -> "WindowState":
        """The window after one more hold of these amounts (`HELD`)."""
        return WindowState(self.used, tuple(a + b for a, b in zip(self.held, amounts, strict=True)))


@dataclass(frozen=True, slots=True)
class ScopeCounters:
    """The running requests of a user or a tenant, and the windows that were asked for."""

    active: int
    windows: tuple[WindowState, ...]

    @classmethod
    def of(cls, active: bytes | None, packed: Sequence[bytes | None]) -> "ScopeCounters":
        """Decodes the fields."""
        return cls(int(active or 0), tuple(WindowState.unpack(value) for value in packed))

    def with_hold(self, prompt: int, output: int, web_searches: int, nano_usd: int) -> "ScopeCounters":
        """The counters after one more hold, in all windows."""
        more = (1, prompt, output, web_searches, nano_usd)
        return ScopeCounters(self.active + 1, tuple(window.with_hold(more) for window in self.windows))


@dataclass(frozen=True, slots=True)
class Hold:
    """The reservation of a running request: its amounts, its deadline and its windows."""

    prompt: int
    output: int
    web_searches: int
    nano_usd: int
    deadline_ms: int
    minute: int
    day: str
    period: str
    user_id: UUID

    @property
    def amounts(self) -> tuple[int, int, int, int, int]:
        """The amounts that each of its windows holds (`HELD`): one request, its prompt, and so on."""
        return 1, self.prompt, self.output, self.web_searches, self.nano_usd

    @property
    def windows(self) -> tuple[str, str, str]:
        """The names of its windows in Redis."""
        return f"m:{self.minute}", f"d:{self.day}", f"p:{self.period}"

    def pack(self) -> bytes:
        """Encodes the field, as admit.lua does."""
        numbers = _HOLD.pack(*self.amounts[1:], self.deadline_ms, self.minute)
        return numbers + f"{self.day}|{self.period}|{self.user_id.hex}".encode()

    @classmethod
    def unpack(cls, packed: bytes) -> "Hold":
        """Decodes a field."""
        prompt, output, web_searches, nano_usd, deadline_ms, minute = map(int, _HOLD.unpack_from(packed))
        day, period, user = packed[_HOLD.size :].decode().split("|")
        return cls(prompt, output, web_searches, nano_usd, deadline_ms, minute, day, period, UUID(user))
