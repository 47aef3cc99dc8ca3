"""The simulator's time: it runs like the real one, can be moved on, and can be stopped. No move goes back.

With a file it shows there how many milliseconds it is ahead of the real clock, before anything happens at the new
time, so that whoever adds the file's number to their own clock lives in the same month. A file that is there at the
start is gone on from; one that cannot be written ends the move with an OSError, and the clock stays.
"""

import math
import time
from pathlib import Path


class Clock:
    """Seconds since 1970, as this Razorpay lives them."""

    def __init__(self, start: int | None = None, *, file: Path | None = None) -> None:
        """Begins at `start`, or now; with a file that is there already, where that says. Raises ValueError."""
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
        """Whether time stands still."""
        return self._frozen_at is not None

    @property
    def offset_ms(self) -> int:
        """How far it is ahead of the real clock."""
        return self._offset_ms if self._frozen_at is None else _ahead_ms(self._frozen_at)

    def now(self) -> float:
        """The present moment."""
        return self._frozen_at if self._frozen_at is not None else time.time() + self._offset_ms / 1000

    def begin(self, start: int | None) -> None:
        """Anew, at `start` or now: the one way back."""
        self._frozen_at = None
        self._set(0 if start is None else _ahead_ms(start))

    def catch_up(self, offset_ms: int) -> None:
        """Is at least so far ahead: the books that are gone on with have been there."""
        self._set(max(offset_ms, self._offset_ms))

    def move(self, to: float) -> None:
        """Jumps ahead; raises ValueError for a time that is over."""
        if to < self.now():
            raise ValueError("the clock cannot go back")
        if self._frozen_at is not None:
            self._frozen_at = to
        else:
            self._set(max(_ahead_ms(to), self._offset_ms))

    def freeze(self, *, frozen: bool) -> None:
        """Stops time but for `move`, or lets it run again; raises ValueError where others follow its file."""
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
    """From the real time to this moment, rounded up: then it has come."""
    return math.floor((to - time.time()) * 1000) + 1
