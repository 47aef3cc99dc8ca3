"""The simulator's time: it runs like the real one, can be moved on, and can be stopped. It never goes back."""

import time


class Clock:
    """Seconds since 1970, as this Razorpay lives them."""

    def __init__(self, start: int | None = None) -> None:
        """Begins at `start`, or now."""
        self._base = float(start) if start is not None else time.time()
        self._since = time.monotonic()
        self.frozen = False

    def now(self) -> float:
        """The present moment."""
        return self._base if self.frozen else self._base + time.monotonic() - self._since

    def move(self, to: float) -> None:
        """Jumps ahead; raises ValueError for a time that is over."""
        now = self.now()
        if to < now:
            raise ValueError("the clock cannot go back")
        self._base, self._since = to, time.monotonic()

    def freeze(self, *, frozen: bool) -> None:
        """Stops time but for `move`, or lets it run again."""
        self._base, self._since = self.now(), time.monotonic()
        self.frozen = frozen
