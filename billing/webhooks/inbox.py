"""The webhook inbox: a delivery is verified on its raw bytes, stored once, acknowledged, and processed later.

Razorpay signs the body but not the event id in the header. So one body is one event under any id, and another body
under a known id is another event: a forged id neither duplicates a replayed delivery nor blocks a later one. A body
older than Razorpay's own retries is refused, so a captured one is useless after a day. The worker is notified a few
times a second at most; a lost notification is made up by its schedule. Postgres down: Unavailable, and Razorpay sends
the delivery again.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from billing.context import INBOX
from billing.models.states import EventState
from billing.razorpay.signatures import webhook_is_genuine
from billing.webhooks.envelope import UNREADABLE, Envelope, read_envelope
from core.clock import now_ms
from core.errors import NakaError, Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from core.queue import post

MAX_BYTES = 1_000_000
"""Razorpay's bodies have a few kilobytes."""

_NOTIFY_EVERY_S = 0.2
_LOG_EVERY_S = 10.0
_EVENT_ID = re.compile(r"[\x21-\x7e]{1,64}")
_LEARN = "UPDATE razorpay_account SET account_id = $1 WHERE id = 1 AND account_id IS NULL"
_KNOWN = "SELECT account_id IS NOT NULL FROM razorpay_account WHERE id = 1"
_STORE = """
INSERT INTO webhook_events
    (event_id, kind, account_id, body, body_sha256, received_ms, due_ms, state, reason, ended_ms)
SELECT $1, $2, $3, $4, $8, $5, $5, first.state, first.reason, CASE WHEN first.state <> 'received' THEN $5::bigint END
FROM (
    SELECT CASE WHEN other THEN 'parked' ELSE $6::text END AS state,
        CASE WHEN other THEN 'an event of another account' ELSE $7::text END AS reason
    FROM (SELECT EXISTS (SELECT FROM razorpay_account WHERE account_id <> $3) AS other) AS account
) AS first
ON CONFLICT DO NOTHING
RETURNING state
"""
_GAUGES = """
SELECT count(*) FILTER (WHERE state = 'received'), count(*) FILTER (WHERE state = 'parked'),
    min(received_ms) FILTER (WHERE state = 'received')
FROM webhook_events WHERE state IN ('received', 'parked')
"""

log = get_logger(__name__)


class StaleEvent(NakaError):
    """A genuine event older than Razorpay's retries: a replay of a captured delivery, or a wrong clock."""

    def __init__(self) -> None:
        super().__init__("this event is older than Razorpay's retries")


class Refusals:
    """Deliveries refused for one reason: all are counted, few are logged."""

    def __init__(self, event: str) -> None:
        """`event` is the name of the log line."""
        self.count = 0
        self._event = event
        self._unlogged = 0
        self._logged_s: float | None = None

    def add(self, size: int) -> None:
        """Counts one delivery of `size` bytes. Its body and signature are not kept."""
        self.count += 1
        at_s = time.monotonic()
        if self._logged_s is not None and at_s < self._logged_s + _LOG_EVERY_S:
            self._unlogged += 1
            return
        log.warning(self._event, bytes=size, not_logged=self._unlogged)
        self._logged_s, self._unlogged = at_s, 0


class Inbox:
    """One per process. `refusals` counts wrong signatures and `stale` old events, of this process."""

    def __init__(self, pool: Connections, secrets: Iterable[SecretStr], *, max_age_s: int | None = None) -> None:
        """Without a secret, nothing is genuine. `max_age_s` None: any age, for a test clock that jumps months."""
        self._pool = pool
        self._max_age_s = max_age_s
        self._secrets = tuple(secrets)
        self._account_known = False
        self._has_news = False
        self._notifying: asyncio.Task[None] | None = None
        self.refusals = Refusals("webhook_refused")
        self.stale = Refusals("webhook_stale")

    def is_genuine(self, body: bytes, signature: str | None) -> bool:
        """Whether one of the secrets signed exactly these bytes. Counts a wrong signature."""
        if webhook_is_genuine(body, signature, self._secrets):
            return True
        self.refusals.add(len(body))
        return False

    async def store(self, body: bytes, event_id: str | None) -> bool:
        """Stores and commits a genuine delivery; False if its body is known. Raises Unavailable, StaleEvent."""
        envelope = read_envelope(body)
        self._require_fresh(envelope, len(body))
        digest = hashlib.sha256(body)
        names = [event_id] if event_id and _EVENT_ID.fullmatch(event_id) else []
        state, reason = _initial_state(envelope)
        stored = None
        async with self._pool.acquire() as connection:
            await self._learn_account(connection, envelope.account_id)
            # The event id conflicts either with this very body, and then its hash does too, or with another body that
            # claimed the id before; that one is stored under its hash.
            for name in (*names, digest.hexdigest()):
                values = (envelope.kind, envelope.account_id, body, now_ms(), state, reason)
                stored = await connection.fetchval(_STORE, name, *values, digest.digest())
                if stored is not None:
                    break
        if stored == EventState.RECEIVED:
            self._notify()
        return stored is not None

    async def stop(self) -> None:
        """Notifies the worker of pending news. Postgres down: the worker's schedule makes up for it."""
        if self._notifying is not None:
            self._notifying.cancel()
            await asyncio.gather(self._notifying, return_exceptions=True)
        if self._has_news:
            await self._post()

    def _require_fresh(self, envelope: Envelope, size: int) -> None:
        """Raises StaleEvent. An event without a time is accepted; Razorpay always sends one."""
        oldest_s = 0 if self._max_age_s is None else now_ms() // 1000 - self._max_age_s
        if 0 < envelope.created_at < oldest_s:
            self.stale.add(size)
            raise StaleEvent

    async def _learn_account(self, connection: Any, account_id: str | None) -> None:
        """Stores the account of the first genuine event; events of another account are parked."""
        if self._account_known or account_id is None:
            return
        await connection.execute(_LEARN, account_id)
        self._account_known = bool(await connection.fetchval(_KNOWN))

    def _notify(self) -> None:
        """Notifies the worker, at once or together with the other events of the interval."""
        self._has_news = True
        if self._notifying is None or self._notifying.done():
            self._notifying = asyncio.create_task(self._keep_notifying(), name="inbox-notifier")

    async def _keep_notifying(self) -> None:
        while self._has_news:
            await self._post()
            await asyncio.sleep(_NOTIFY_EVERY_S)

    async def _post(self) -> None:
        self._has_news = False
        with suppress(Unavailable):
            async with self._pool.acquire() as connection:
                await post(connection, INBOX)


@dataclass(frozen=True, slots=True)
class InboxGauges:
    """The backlog. `lag_s`: age of the oldest unprocessed event; 0 without one."""

    received: int
    parked: int
    lag_s: float


async def read_inbox_gauges(connection: Any) -> InboxGauges:
    """The current backlog. Postgres down: raises the connection's error."""
    received, parked, oldest_ms = await connection.fetchrow(_GAUGES)
    return InboxGauges(received, parked, 0.0 if oldest_ms is None else max(0, now_ms() - oldest_ms) / 1000)


def _initial_state(envelope: Envelope) -> tuple[str, str | None]:
    """The initial state of an event, and its reason."""
    if envelope.kind == UNREADABLE:
        return EventState.PARKED, "signed, but without an event name in JSON"
    if envelope.subject is None:
        return EventState.IGNORED, "unused kind of event"
    return EventState.RECEIVED, None
