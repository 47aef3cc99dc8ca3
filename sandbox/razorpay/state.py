"""The simulator's state in a file between starts: JSON, replaced atomically.

The file is at most a second behind, and up to date after a stop; a kill may lose that second. It holds the books,
pending webhooks, ordered faults and the clock's offset, but not the list of calls. Key, secrets and addresses are those
of the new start. An unreadable file fails the start; a failed write is reported on stderr and the simulator continues.
"""

import asyncio
import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from sandbox.razorpay.account import Account
from sandbox.razorpay.books import Books
from sandbox.razorpay.deliveries import Endpoint, Parcel
from sandbox.razorpay.faults import Fault, WebhookFault

_PAUSE_S = 1.0
_SHARE = 50
"""Saving takes at most one part in this many of the time."""
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class State:
    """The contents of the file."""

    offset_ms: int
    books: Books
    """Without events, which are stored with the parcels."""
    parcels: list[Parcel]
    endpoint: Endpoint
    answers: list[Fault]
    webhooks: list[WebhookFault]


def load(account: Account, file: Path) -> None:
    """Loads the file if it exists. Raises ValueError for an invalid one."""
    if not file.exists():
        return
    try:
        state = msgspec.json.decode(file.read_bytes(), type=State)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{file}: cannot be read ({error}); move it away to begin anew") from error
    now = account.books
    state.books.base_url, state.books.key_secret = now.base_url, now.key_secret
    if state.books.secret != now.secret:
        state.books.old_secret, state.books.secret = state.books.secret, now.secret
    state.books.events = [parcel.event for parcel in state.parcels]
    if url := account.postman.endpoint.url:
        state.endpoint = replace(state.endpoint, url=url, enabled=True, failing_since=None)
    account.books = state.books
    account.clock.catch_up(state.offset_ms)
    account.faults.answers, account.faults.webhooks = state.answers, state.webhooks
    account.postman.go_on(state.books, state.parcels, state.endpoint)


def dump(account: Account) -> bytes:
    """The current contents of the file."""
    account.postman.collect()
    state = State(
        offset_ms=account.clock.offset_ms,
        books=replace(account.books, events=[]),
        parcels=account.postman.parcels,
        endpoint=account.postman.endpoint,
        answers=account.faults.answers,
        webhooks=account.faults.webhooks,
    )
    return msgspec.json.encode(state)


class Keeper:
    """Writes the file after changes."""

    def __init__(self, account: Account, file: Path) -> None:
        """`path` is the file of the account."""
        self._account, self._file = account, file
        self._written = b""

    async def run(self) -> None:
        """Saves once a second until cancelled."""
        while True:
            began = time.monotonic()
            self.save()
            await asyncio.sleep(max(_PAUSE_S, _SHARE * (time.monotonic() - began)))

    def save(self) -> None:
        """Writes changes to a file that only its owner can read."""
        contents = dump(self._account)
        if contents == self._written:
            return
        fresh = self._file.with_name(f"{self._file.name}.new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(contents)
            fresh.replace(self._file)
        except OSError as error:
            _log.warning("cannot save: %s", error)
            return
        self._written = contents
