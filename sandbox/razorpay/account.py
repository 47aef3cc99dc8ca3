"""One account at the simulated Razorpay: its books, its clock, its faults and its webhooks, together.

The rule it keeps: time moves on step by step. At each moment at which something falls due the clock, and its file, are
there first; then the thing is done; then its webhooks may go out.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.razorpay import schedule
from sandbox.razorpay.books import Books
from sandbox.razorpay.clock import Clock
from sandbox.razorpay.deliveries import Endpoint, Postman
from sandbox.razorpay.entities import Json
from sandbox.razorpay.faults import Faults

_ACCOUNT_ID = "acc_SandboxNaka001"
_MAX_CALLS = 100_000
_DRAIN_PAUSE_S = 0.02
_GRACE_S = 1
"""Whoever says "now" in whole seconds is not going back."""


@dataclass(kw_only=True)
class Account:
    """What the routes work on."""

    key_id: str
    books: Books
    clock: Clock
    faults: Faults
    postman: Postman
    calls: deque[Json] = field(default_factory=lambda: deque(maxlen=_MAX_CALLS))
    """The calls of `/v1`, with the status they were answered with; None for a socket that was cut."""
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)

    def tick(self) -> int:
        """Does what is due by now, and says what time it is."""
        now = int(self.clock.now())
        schedule.advance(self.books, now)
        return now

    async def move(self, to: float, *, drain_s: float = 0) -> None:
        """Moves on to `to`, one moment after the other; raises ValueError for a time that is over.

        With `drain_s`, webhooks of before and of each moment are delivered before the next comes, or given so long.
        """
        if to < self.clock.now() - _GRACE_S:
            raise ValueError("the clock cannot go back")
        async with self.moving:
            await self.drain(drain_s)
            while (at := schedule.next_moment(self.books)) is not None and at <= to:
                self._be_at(at)
                await self.drain(drain_s)
            self._be_at(to)
            await self.drain(drain_s)

    def _be_at(self, at: float) -> None:
        """It is this time now, or later already: the real clock runs too."""
        if at > self.clock.now():
            self.clock.move(at)
        self.tick()

    async def drain(self, timeout_s: float) -> int:
        """Waits until no webhook is due or under way, and returns how many are left."""
        end = asyncio.get_running_loop().time() + timeout_s
        while (left := self.postman.busy()) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - time itself makes it due
            await asyncio.sleep(_DRAIN_PAUSE_S)
        return left

    async def reset(self, *, start: int | None, webhook_secret: str, webhook_url: str | None) -> None:
        """Forgets everything, and begins anew at `start`, or now; nothing of before is delivered any more."""
        async with self.moving:
            old = self.books
            books = _empty_books(old.key_secret, webhook_secret, old.base_url)
            await self.postman.begin(books, [], Endpoint(url=webhook_url))
            self.books = books
            self.clock.begin(start)
            self.faults.clear()
            self.calls.clear()


def open_account(
    key_id: str,
    key_secret: str,
    *,
    webhook_url: str | None,
    webhook_secret: str,
    start: int | None,
    base_url: str,
    clock_file: Path | None = None,
) -> Account:
    """A new account with empty books. Raises ValueError for a clock file that holds something else."""
    books = _empty_books(key_secret, webhook_secret, base_url)
    clock, faults = Clock(start, file=clock_file), Faults()
    return Account(
        key_id=key_id, books=books, clock=clock, faults=faults, postman=Postman(books, clock, faults, webhook_url)
    )


def _empty_books(key_secret: str, webhook_secret: str, base_url: str) -> Books:
    return Books(account_id=_ACCOUNT_ID, base_url=base_url, key_secret=key_secret, secret=webhook_secret)
