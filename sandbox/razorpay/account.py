"""One account at the simulated Razorpay: its books, its clock, its faults and its webhooks, together."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from sandbox.razorpay import schedule
from sandbox.razorpay.books import Books
from sandbox.razorpay.clock import Clock
from sandbox.razorpay.deliveries import Postman
from sandbox.razorpay.entities import Json
from sandbox.razorpay.faults import Faults

_MAX_CALLS = 100_000
_DRAIN_PAUSE_S = 0.02


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

    def tick(self) -> int:
        """Does what is due by now, and says what time it is."""
        now = int(self.clock.now())
        schedule.advance(self.books, now)
        return now

    def move(self, to: float) -> int:
        """Jumps ahead, doing each thing at its time; raises ValueError."""
        self.clock.move(to)
        return self.tick()

    async def drain(self, timeout_s: float) -> int:
        """Waits until no webhook is due or under way, and returns how many are left."""
        end = asyncio.get_running_loop().time() + timeout_s
        while (left := self.postman.busy()) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - time itself makes it due
            await asyncio.sleep(_DRAIN_PAUSE_S)
        return left


def open_account(
    key_id: str, key_secret: str, *, webhook_url: str | None, webhook_secret: str, start: int | None, base_url: str
) -> Account:
    """A new account with empty books."""
    books = Books(account_id="acc_SandboxNaka001", base_url=base_url, key_secret=key_secret, secret=webhook_secret)
    clock, faults = Clock(start), Faults()
    return Account(
        key_id=key_id, books=books, clock=clock, faults=faults, postman=Postman(books, clock, faults, webhook_url)
    )
