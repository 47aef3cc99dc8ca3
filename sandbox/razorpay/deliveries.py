"""Delivery of webhooks: signed, sent, retried at the intervals that were measured, given up.

Success is a 2xx within the time-out. Every retry has the event's id, bytes and secret. Retry intervals are in the
simulator's seconds, so a jump of the clock triggers retries at once. An endpoint that failed for 24 h is disabled, and
later events are lost. Nothing waits for an endpoint that is down.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from sandbox.razorpay.books import Books
from sandbox.razorpay.calendar import DAY_S
from sandbox.razorpay.clock import Clock
from sandbox.razorpay.entities import Event, Json
from sandbox.razorpay.faults import Faults

LADDER_S = (0.23, 6, 19, 40, 82, 164, 326, 650, 1294, 2576, 5148, 10_260, 20_520, 41_004, 81_936)
_SLOW_FIRST_RETRY = ("refund.created", "payment.failed")
_PARALLEL = 8
_PAUSE_S = 0.1


@dataclass(kw_only=True)
class Parcel:
    """One event and its delivery."""

    event: Event
    due: float
    first_due: float
    state: str = "waiting"
    """`waiting`, `held`, `sending`, `delivered`, `exhausted`, `lost`, `dropped` or `unsubscribed`."""
    copies: int = 0
    old_secret: bool = False
    tampered: bool = False
    attempts: list[Json] = field(default_factory=list)
    failures: int = 0


@dataclass(kw_only=True)
class Endpoint:
    """The endpoint of webhooks."""

    url: str | None = None
    enabled: bool = True
    timeout_s: float = 5.0
    failing_since: float | None = None


class Postman:
    """Takes new events from the books and delivers them."""

    def __init__(self, books: Books, clock: Clock, faults: Faults, url: str | None) -> None:
        """Starts empty."""
        self.endpoint = Endpoint(url=url)
        self.parcels: list[Parcel] = []
        self._open: list[Parcel] = []
        self._books, self._clock, self._faults = books, clock, faults
        self._taken = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._at_rest = False

    async def begin(self, books: Books, parcels: list[Parcel], endpoint: Endpoint) -> None:
        """Waits for running deliveries, bounded by the time-out, then replaces the parcels."""
        self._at_rest = True
        await asyncio.gather(*self._sending, return_exceptions=True)
        self.go_on(books, parcels, endpoint)
        self._at_rest = False

    def go_on(self, books: Books, parcels: list[Parcel], endpoint: Endpoint) -> None:
        """Takes over saved parcels, one per event; interrupted deliveries are sent again."""
        self._books, self.parcels, self.endpoint, self._taken = books, parcels, endpoint, len(parcels)
        for parcel in parcels:
            parcel.state = "waiting" if parcel.state == "sending" else parcel.state
        self._open = [parcel for parcel in parcels if parcel.state in ("waiting", "held")]

    async def run(self, tick: Callable[[], object]) -> None:
        """Delivers due parcels until cancelled."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            while True:
                tick()
                self.collect()
                for parcel in self._ready():
                    parcel.state = "sending"
                    task = asyncio.create_task(self._bring(client, parcel))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)
                if self._sending:
                    await asyncio.wait(self._sending, timeout=_PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(_PAUSE_S / 4)

    def collect(self) -> None:
        """Makes parcels of new events, with the faults ordered for them."""
        for event in self._books.events[self._taken :]:
            parcel = Parcel(event=event, due=event.created_at, first_due=event.created_at)
            self.parcels.append(parcel)
            if self.endpoint.url is None or not self.endpoint.enabled:
                parcel.state = "unsubscribed" if self.endpoint.url is None else "lost"
                continue
            self._order(parcel)
            if parcel.state in ("waiting", "held"):
                self._open.append(parcel)
        self._taken = len(self._books.events)

    def _order(self, parcel: Parcel) -> None:
        for fault in self._faults.on_webhook(parcel.event.name):
            if fault.kind == "duplicate":
                parcel.copies += fault.copies
            elif fault.kind == "delay":
                parcel.due += fault.delay_s
                parcel.first_due = parcel.due
            elif fault.kind == "drop":
                parcel.state = "dropped"
            elif fault.kind == "reorder":
                parcel.state = "held"
            elif fault.kind == "old_secret":
                parcel.old_secret = True
            else:
                parcel.tampered = True

    def busy(self) -> int:
        """The number of parcels that are being sent or due."""
        self.collect()
        now = self._clock.now()
        return sum(each.state == "sending" or (each.state == "waiting" and each.due <= now) for each in self._open)

    def release(self) -> None:
        """Sends held parcels."""
        for parcel in self._open:
            if parcel.state == "held":
                parcel.state = "waiting"

    def replay(self, event_id: str) -> bool:
        """Sends an event again, whatever its state."""
        for parcel in self.parcels:
            if parcel.event.id == event_id and parcel.state != "sending":
                if parcel not in self._open:
                    self._open.append(parcel)
                parcel.state, parcel.due, parcel.failures = "waiting", self._clock.now(), 0
                parcel.first_due = parcel.due
                return True
        return False

    def _ready(self) -> list[Parcel]:
        """The next parcels: those due for longest, up to the limit of concurrent ones."""
        now, room = self._clock.now(), 0 if self._at_rest else _PARALLEL - len(self._sending)
        due = [each for each in self._open if each.state == "waiting" and each.due <= now]
        return sorted(due, key=lambda each: each.due)[:room]

    async def _bring(self, client: httpx2.AsyncClient, parcel: Parcel) -> None:
        """Makes one delivery and applies its outcome."""
        if not parcel.attempts:
            parcel.due = parcel.first_due = self._clock.now()
        began = time.monotonic()
        status, said = await self._send(client, parcel)
        spent_ms = int((time.monotonic() - began) * 1000)
        parcel.attempts.append({"at": int(parcel.due), "status": status, "error": said, "ms": spent_ms})
        if status is not None and 200 <= status < 300:  # noqa: PLR2004 - any 2xx
            self.endpoint.failing_since = None
            self._arrived(parcel)
        else:
            self._failed(parcel)
        if parcel.state not in ("waiting", "held") and parcel in self._open:
            self._open.remove(parcel)
        self.release()

    async def _send(self, client: httpx2.AsyncClient, parcel: Parcel) -> tuple[int | None, str | None]:
        """The status, or the error."""
        event = parcel.event
        secret = (event.old_secret or f"old-{event.secret}") if parcel.old_secret else event.secret
        head = {
            "User-Agent": "Razorpay-Webhook/v1",
            "Content-Type": "application/json",
            "Request-Id": event.id,
            "X-Razorpay-Event-Id": event.id,
            "Accept-Encoding": "gzip",
        }
        if secret:
            head["X-Razorpay-Signature"] = hmac.new(secret.encode(), event.body, hashlib.sha256).hexdigest()
        body = event.body.replace(b'"entity":"event"', b'"entity":"Event"') if parcel.tampered else event.body
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                answer = await client.post(self.endpoint.url or "", content=body, headers=head, timeout=None)
        except TimeoutError:
            return None, "timeout"
        except httpx2.HTTPError as error:
            return None, type(error).__name__
        return answer.status_code, None

    def _arrived(self, parcel: Parcel) -> None:
        parcel.state = "delivered"
        if parcel.copies:
            parcel.copies -= 1
            parcel.state = "waiting"

    def _failed(self, parcel: Parcel) -> None:
        """Schedules the next retry; disables an endpoint that failed for a day."""
        endpoint = self.endpoint
        if endpoint.failing_since is None:
            endpoint.failing_since = parcel.due
        if parcel.due - endpoint.failing_since >= DAY_S:
            endpoint.enabled = False
            for each in self._open:
                each.state = each.state if each.state == "sending" else "lost"
            parcel.state = "lost"
            return
        ladder = LADDER_S[1:] if parcel.event.name in _SLOW_FIRST_RETRY else LADDER_S
        if parcel.failures >= len(ladder):
            parcel.state = "exhausted"
            return
        parcel.due = parcel.first_due + ladder[parcel.failures]
        parcel.failures += 1
        parcel.state = "waiting" if endpoint.enabled else "lost"
