"""The simulator's clock: runs like the real one, and can be advanced or stopped, never set back.

With a file, it writes there its offset from the real clock in milliseconds, before any step at the new time, so other
processes can follow it. An existing file is continued. If the file can't be written, the move raises OSError and the
clock stays.
"""

import math
import time
from pathlib import Path


class Clock:
    """Unix seconds of the simulator."""

    def __init__(self, start: int | None = None, *, file: Path | None = None) -> None:
        """Starts at `start` or now, or at the offset of an existing file. Raises ValueError."""
        self._file = file
        self._frozen_at: float | None = None
        shown = _shown_ms(file) if file is not None and file.exists() else None
        self._offset_ms = 0
        if shown is not None:
            self._set(shown)
        else:
            self.begin(start)

    @property
    def frozen(self) -> bool:
        """Whether the clock is stopped."""
        return self._frozen_at is not None

    @property
    def offset_ms(self) -> int:
        """Seconds ahead of the real clock."""
        return self._offset_ms if self._frozen_at is None else _ahead_ms(self._frozen_at)

    def now(self) -> float:
        """The current time."""
        return self._frozen_at if self._frozen_at is not None else time.time() + self._offset_ms / 1000

    def begin(self, start: int | None) -> None:
        """Restarts at `start` or now; the only way back."""
        self._frozen_at = None
        self._set(0 if start is None else _ahead_ms(start))

    def catch_up(self, offset_ms: int) -> None:
        """Sets a minimum offset: the time of the loaded books."""
        self._set(max(offset_ms, self._offset_ms))

    def move(self, to: float) -> None:
        """Jumps ahead. Raises ValueError for a past time."""
        if to < self.now():
            raise ValueError("the clock cannot go back")
        if self._frozen_at is not None:
            self._frozen_at = to
        else:
            self._set(max(_ahead_ms(to), self._offset_ms))

    def freeze(self, *, frozen: bool) -> None:
        """Stops the clock except for `move`, or restarts it. Raises ValueError if it has a file."""
        if self._file is not None and frozen:
            raise ValueError("a clock that is followed through its file cannot be frozen")
        if frozen == self.frozen:
            return
        now = self.now()
        self._frozen_at = now if frozen else None
        if not frozen:
            self._set(_ahead_ms(now))

    def _set(self, offset_ms: int) -> None:
        if self._file is not None:
            fresh = self._file.with_name(f"{self._file.name}.new")
            fresh.write_text(str(offset_ms))
            fresh.replace(self._file)
        self._offset_ms = offset_ms


def _shown_ms(file: Path) -> int:
    text = file.read_text()
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{file}: no number of milliseconds: {text[:40]!r}") from None


def _ahead_ms(to: float) -> int:
    """Milliseconds from the real time to this one, rounded up so that the time is reached."""
    return math.floor((to - time.time()) * 1000) + 1
