"""One account at the simulated Razorpay: its books, clock, faults and webhooks.

Time advances in steps. For each due step the clock and its file are set first, then the step is done, then its
webhooks may be sent.
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
"""Tolerance for a "now" in whole seconds."""


@dataclass(kw_only=True)
class Account:
    """The state that the routes use."""

    key_id: str
    books: Books
    clock: Clock
    faults: Faults
    postman: Postman
    calls: deque[Json] = field(default_factory=lambda: deque(maxlen=_MAX_CALLS))
    """The calls of `/v1` with their status; None for a connection cut by a fault."""
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)

    def tick(self) -> int:
        """Makes all due steps and returns the time."""
        now = int(self.clock.now())
        schedule.advance(self.books, now)
        return now

    async def move(self, to: float, *, drain_s: float = 0) -> None:
        """Advances to `to`, step by step. Raises ValueError for a past time.

        With `drain_s`, pending webhooks and those of each step get that long to be delivered before the next step.
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
        """Sets the clock to at least this time; it may be later already, since the real clock runs too."""
        if at > self.clock.now():
            self.clock.move(at)
        self.tick()

    async def drain(self, timeout_s: float) -> int:
        """Waits until no webhook is due or being sent; returns how many are left."""
        end = asyncio.get_running_loop().time() + timeout_s
        while (left := self.postman.busy()) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - time itself makes it due
            await asyncio.sleep(_DRAIN_PAUSE_S)
        return left

    async def reset(self, *, start: int | None, webhook_secret: str, webhook_url: str | None) -> None:
        """Resets everything to `start` or now. Earlier webhooks are dropped."""
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
    """A new account with empty books. Raises ValueError for an invalid clock file."""
    books = _empty_books(key_secret, webhook_secret, base_url)
    clock, faults = Clock(start, file=clock_file), Faults()
    return Account(
        key_id=key_id, books=books, clock=clock, faults=faults, postman=Postman(books, clock, faults, webhook_url)
    )


def _empty_books(key_secret: str, webhook_secret: str, base_url: str) -> Books:
    return Books(account_id=_ACCOUNT_ID, base_url=base_url, key_secret=key_secret, secret=webhook_secret)
