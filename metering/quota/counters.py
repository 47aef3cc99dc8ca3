"""What a window and a hold say, and how Redis writes them. Pure.

A window is a vector: seven used counts, and four of what requests that run hold. Redis has each as one field of a
hash; Postgres adds the same numbers up from its rows (`metering.admission.snapshot`), and either may be judged.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

_WINDOW = struct.Struct(">11d")
_HOLD = struct.Struct(">5d")
COUNTS = 7
"""A window's counts: requests, input, output, cache read, cache write 5 min, cache write 1 h, nano-USD."""


@dataclass(frozen=True, slots=True)
class WindowState:
    """A window: seven used counts, and what is held (requests, prompt, output, nano-USD)."""

    used: tuple[int, ...] = (0,) * COUNTS
    held: tuple[int, ...] = (0,) * 4

    def pack(self) -> bytes:
        """The field's value."""
        return _WINDOW.pack(*self.used, *self.held)

    @classmethod
    def unpack(cls, packed: bytes | None) -> "WindowState":
        """Of a field's value; a window that is not there is empty."""
        if packed is None:
            return cls()
        numbers = tuple(int(number) for number in _WINDOW.unpack(packed))
        return cls(numbers[:COUNTS], numbers[COUNTS:])


@dataclass(frozen=True, slots=True)
class ScopeCounters:
    """A user, or its tenant: the requests that run now, and each window that was asked for."""

    active: int
    windows: tuple[WindowState, ...]

    @classmethod
    def of(cls, active: bytes | None, packed: Sequence[bytes | None]) -> "ScopeCounters":
        """Of the fields' values."""
        return cls(int(active or 0), tuple(WindowState.unpack(value) for value in packed))

    def with_hold(self, prompt: int, output: int, nano_usd: int) -> "ScopeCounters":
        """After one more request took its hold, in all windows."""
        more = (1, prompt, output, nano_usd)
        return ScopeCounters(
            self.active + 1,
            tuple(
                WindowState(window.used, tuple(a + b for a, b in zip(window.held, more, strict=True)))
                for window in self.windows
            ),
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """What a request holds, and in which windows."""

    prompt: int
    output: int
    nano_usd: int
    deadline_ms: int
    minute: int
    day: str
    period: str
    user_id: UUID

    def pack(self) -> bytes:
        """The field's value, as admit.lua writes it."""
        numbers = _HOLD.pack(self.prompt, self.output, self.nano_usd, self.deadline_ms, self.minute)
        return numbers + f"{self.day}|{self.period}|{self.user_id.hex}".encode()
