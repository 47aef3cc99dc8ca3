"""What Razorpay tells us: verified on its raw bytes, stored once, acknowledged. What it means is found out later.

The rule: a delivery is acknowledged only after the commit that keeps it, by one short statement whatever the worker
does; an event is kept once, however often and by however many it is brought. Razorpay signs the body and not the id in
the header, so one body is one event whatever ids it comes with, and another body under a known id is another event: an
id that was made up neither multiplies a captured delivery nor keeps a later one out. A body that is older than
Razorpay's own retries is refused: a capture is worth nothing after a day. What nobody of ours signed leaves a number
and, now and then, a log line, and nothing else. Postgres away: Unavailable, and Razorpay brings it again.
The worker is told of new events at most a few times a second; were that lost, its next tick finds them.
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
from billing.razorpay.signatures import webhook_is_genuine
from billing.webhooks.envelope import UNREADABLE, Envelope, read_envelope
from core.clock import now_ms
from core.errors import NakaError, Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from core.queue import post

MAX_BYTES = 1_000_000
"""Razorpay's are of a few kilobytes."""

_TELL_EVERY_S = 0.2
_LOG_EVERY_S = 10.0
_EVENT_ID = re.compile(r"[\x21-\x7e]{1,64}")
_LEARN = "UPDATE razorpay_account SET account_id = $1 WHERE id = 1 AND account_id IS NULL"
_KNOWN = "SELECT account_id IS NOT NULL FROM razorpay_account WHERE id = 1"
_STORE = """
INSERT INTO webhook_events
    (event_id, kind, account_id, body, body_sha256, received_ms, due_ms, state, reason, ended_ms)
SELECT $1, $2, $3, $4, $8, $5, $5, said.state, said.reason, CASE WHEN said.state <> 'received' THEN $5::bigint END
FROM (
    SELECT CASE WHEN other THEN 'parked' ELSE $6::text END AS state,
        CASE WHEN other THEN 'an event of another account' ELSE $7::text END AS reason
    FROM (SELECT EXISTS (SELECT FROM razorpay_account WHERE account_id <> $3) AS other) AS asked
) AS said
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
    """Genuine, but older than Razorpay's own retries: somebody replays what was captured, or a clock is wrong."""

    def __init__(self) -> None:
        super().__init__("this event is older than Razorpay would still bring it")


class Refusals:
    """Deliveries that were refused for one reason: all are counted, few are logged."""

    def __init__(self, event: str) -> None:
        """Begins at none. `event` is the name of the log line."""
        self.count = 0
        self._event = event
        self._untold = 0
        self._told_s: float | None = None

    def add(self, size: int) -> None:
        """One more, of so many bytes. Neither its body nor its signature is kept anywhere."""
        self.count += 1
        at_s = time.monotonic()
        if self._told_s is not None and at_s < self._told_s + _LOG_EVERY_S:
            self._untold += 1
            return
        log.warning(self._event, bytes=size, not_logged=self._untold)
        self._told_s, self._untold = at_s, 0


class Inbox:
    """One per process. `refusals` (not signed by us) and `stale` are this process's own."""

    def __init__(self, pool: Connections, secrets: Iterable[SecretStr], *, max_age_s: int | None = None) -> None:
        """Without a secret, nothing is genuine. `max_age_s` None: of any age, as where a test clock jumps months."""
        self._pool = pool
        self._max_age_s = max_age_s
        self._secrets = tuple(secrets)
        self._account_known = False
        self._untold = False
        self._telling: asyncio.Task[None] | None = None
        self.refusals = Refusals("webhook_refused")
        self.stale = Refusals("webhook_stale")

    def is_genuine(self, body: bytes, signature: str | None) -> bool:
        """Whether one of our secrets signed exactly these bytes; who did not is counted."""
        if webhook_is_genuine(body, signature, self._secrets):
            return True
        self.refusals.add(len(body))
        return False

    async def store(self, body: bytes, event_id: str | None) -> bool:
        """Keeps a genuine delivery, committed; False if its body was there. Raises Unavailable, StaleEvent."""
        envelope = read_envelope(body)
        self._require_fresh(envelope, len(body))
        digest = hashlib.sha256(body)
        names = [event_id] if event_id and _EVENT_ID.fullmatch(event_id) else []
        state, reason = _judge(envelope)
        stored = None
        async with self._pool.acquire() as connection:
            await self._learn_account(connection, envelope.account_id)
            # The second name is tried when the first one conflicts: with this body, then so does the second; or with
            # another body that claimed the id before.
            for name in (*names, digest.hexdigest()):
                said = (envelope.kind, envelope.account_id, body, now_ms(), state, reason)
                stored = await connection.fetchval(_STORE, name, *said, digest.digest())
                if stored is not None:
                    break
        if stored == "received":
            self._tell()
        return stored is not None

    async def stop(self) -> None:
        """Tells the worker of what it was not told yet. Postgres away: it finds out by itself."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        if self._untold:
            await self._post()

    def _require_fresh(self, envelope: Envelope, size: int) -> None:
        """Raises StaleEvent. An event that does not say when it was made is taken: no body of Razorpay's omits it."""
        oldest_s = 0 if self._max_age_s is None else now_ms() // 1000 - self._max_age_s
        if 0 < envelope.created_at < oldest_s:
            self.stale.add(size)
            raise StaleEvent

    async def _learn_account(self, connection: Any, account_id: str | None) -> None:
        """The first genuine event says whose money this database speaks of."""
        if self._account_known or account_id is None:
            return
        await connection.execute(_LEARN, account_id)
        self._account_known = bool(await connection.fetchval(_KNOWN))

    def _tell(self) -> None:
        """Tells the worker now, or together with what else comes within the pause."""
        self._untold = True
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_on(), name="inbox-tells")

    async def _tell_on(self) -> None:
        while self._untold:
            await self._post()
            await asyncio.sleep(_TELL_EVERY_S)

    async def _post(self) -> None:
        self._untold = False
        with suppress(Unavailable):
            async with self._pool.acquire() as connection:
                await post(connection, INBOX)


@dataclass(frozen=True, slots=True)
class InboxGauges:
    """What waits. `lag_s`: how long the oldest event that is not worked off has waited; 0 when there is none."""

    received: int
    parked: int
    lag_s: float


async def read_inbox_gauges(connection: Any) -> InboxGauges:
    """Right now. Postgres away: raises what the connection raises."""
    received, parked, oldest_ms = await connection.fetchrow(_GAUGES)
    return InboxGauges(received, parked, 0.0 if oldest_ms is None else max(0, now_ms() - oldest_ms) / 1000)


def _judge(envelope: Envelope) -> tuple[str, str | None]:
    """The state that an event begins in, and why."""
    if envelope.kind == UNREADABLE:
        return "parked", "genuine, but it names no event in JSON"
    if envelope.subject is None:
        return "ignored", "a kind of event that is not used"
    return "received", None
