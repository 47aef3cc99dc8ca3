"""One run of an idempotent request, by the process that owns it: to its own client, and to the store.

The run goes on when its client leaves, because a retry wants its answer; the request's deadline bounds it. It ends
early when nobody can read it any more: the client is gone, and the answer is too large to store or the key was taken
over. The client's pace does not hold up the store. The last write waits for the store, so that an answer that the
client knows to be complete can be replayed. Redis away meanwhile: items wait, within the bound of an answer.
"""

import asyncio
import contextlib
from collections import deque
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.gateway.idempotency.event_ids import EventIds, is_event_stream
from api.gateway.idempotency.heads import encode_head, own_head
from api.gateway.idempotency.keys import Entry, Kind, Seal
from api.gateway.idempotency.store import End, Kept, RunStore
from api.gateway.relay import RECORDER
from api.http.problems import REQUEST_ID
from api.http.request_context import RAW_SEND
from core.logs import get_logger
from core.tasks import end
from metering.admission.redis_pipeline import RedisUnavailable
from metering.journal.records import Outcome

_ITEM_BYTES = 64 * 1024
_PAUSE_S = 0.05
"""Between two writes to the store, so that a fast answer is not a call for each piece."""
_RETRY_S = 0.25
_LAST_WAIT_S = 1.0
"""How long the client's last write waits for the store."""
_CLOSE_S = 3.0
"""How long the end of a run is tried to be stored; after it the lease expires."""
_MAX_QUEUED_BYTES = 256 * 1024
"""Bytes that may wait for the client once the answer is not stored; at the bound the run waits, too."""
_COMPLETE = frozenset({Outcome.COMPLETED, Outcome.REFUSED})
_OK = 200

log = get_logger(__name__)


class Recording:
    """One run. `with_ids`: the events of an event stream get ids."""

    def __init__(self, store: RunStore, entry: Entry, run: str, body: bytes, *, with_ids: bool) -> None:
        self._store = store
        self._entry = entry
        self._run = run
        self._body: bytes | None = body
        self._with_ids = with_ids
        self._seal = Seal(entry, run)
        self._items: list[bytes] = []
        """Sealed, and not yet in the store; the first has the number `_stored`."""
        self._stored = 0
        self._bytes = 0
        self._end = End.NOT_YET
        self._kept = Kept.KEPT
        self._news, self._ended, self._closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._queue_news, self._queue_taken = asyncio.Event(), asyncio.Event()
        self._has_last = False
        self._client_gone = False
        self._abort = asyncio.Event()
        self._status = 0

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application to its end, with its answer to the client and to the store."""
        scope.pop(RAW_SEND, None)  # every piece has to come here
        watcher = asyncio.create_task(self._watch(receive), name="idempotent-client")
        keeper = asyncio.create_task(self._keep(), name="idempotent-keeper")
        writer = asyncio.create_task(self._write(send), name="idempotent-writer")
        try:
            await app(scope, self._receive, lambda message: self._take(message, scope))
            if self._has_last:
                await writer
        finally:
            try:
                await self._close(writer)
            finally:
                for task in (watcher, keeper, writer):
                    await end(task)

    async def _receive(self) -> Message:
        """The body; then a disconnect, once nobody can read the answer."""
        if self._body is not None:
            body, self._body = self._body, None  # a large prompt is not kept
            return {"type": "http.request", "body": body, "more_body": False}
        await self._abort.wait()
        return {"type": "http.disconnect"}

    async def _take(self, message: Message, scope: Scope) -> None:
        """Takes a message of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = list(message["headers"])  # outer middleware adds to the message's own
            self._add_item(Kind.HEAD, encode_head(self._status, headers, scope[REQUEST_ID]))
            self._queue_up({**message, "headers": headers})
            return
        body, self._has_last = message.get("body", b""), not message.get("more_body")
        if self._end is End.NOT_YET:  # a last write that a stop interrupted comes again
            for at in range(0, len(body), _ITEM_BYTES):
                self._add_item(Kind.BODY, body[at : at + _ITEM_BYTES])
            if self._has_last:
                self._finish(is_kept=self._status == _OK and _is_complete(scope))
        if self._has_last:
            await _at_most(_LAST_WAIT_S, self._closed)
        self._queue_up(message)
        if self._kept is not Kept.KEPT and not self._has_last:
            await self._let_client_read()

    # The store

    def _add_item(self, kind: Kind, data: bytes) -> None:
        if self._kept is not Kept.KEPT:
            return
        item = self._seal.seal(self._stored + len(self._items), kind, data)
        self._bytes += len(item)
        if self._bytes > self._store.answer_max_bytes:
            self._not_kept(Kept.LARGE)
        else:
            self._items.append(item)
        self._news.set()

    def _finish(self, *, is_kept: bool) -> None:
        """Ends the run, for the store."""
        self._add_item(Kind.COMPLETE if is_kept else Kind.FAILED, b"")
        self._end_as(End.KEEP if is_kept else End.FREE)

    async def _close(self, writer: "asyncio.Task[None]") -> None:
        """Frees the key if the answer broke off, and gives the store and the client time for the end."""
        if self._end is End.NOT_YET:
            self._end_as(End.FREE)
        closing = asyncio.ensure_future(self._closed.wait())
        ends: set[asyncio.Future[Any]] = {closing, writer} if self._has_last else {closing}
        await asyncio.wait(ends, timeout=_CLOSE_S)
        if not self._closed.is_set():
            log.warning("answer_not_stored", items=len(self._items))
        closing.cancel()

    def _end_as(self, ending: End) -> None:
        self._end = ending
        self._ended.set()
        self._news.set()

    def _not_kept(self, kept: Kept) -> None:
        """The answer, or the rest of it, is not stored."""
        self._kept = kept
        self._items.clear()
        if self._client_gone:
            self._abort.set()

    async def _keep(self) -> None:
        """Stores items as they come, and extends the lease, until the end is stored or the key is lost."""
        while True:
            await _at_most(self._store.beat_s, self._news)
            self._news.clear()
            last, count = self._end, len(self._items)
            ending = End.LARGE if self._kept is Kept.LARGE and last is not End.FREE else last
            try:
                kept = await self._store.append(self._entry, self._run, self._stored, self._items[:count], end=ending)
            except RedisUnavailable:
                await asyncio.sleep(_RETRY_S)
                self._news.set()
                continue
            if kept is not Kept.KEPT and self._kept is Kept.KEPT:
                self._not_kept(kept)
            del self._items[:count]
            self._stored += count
            if kept is Kept.LOST or last is not End.NOT_YET:
                self._closed.set()
                return
            await _at_most(_PAUSE_S, self._ended)

    # The client

    def _queue_up(self, message: Message) -> None:
        if not self._client_gone:
            self._queue.append(message)
            self._queued_bytes += len(message.get("body", b""))
            self._queue_news.set()

    async def _let_client_read(self) -> None:
        while self._queued_bytes > _MAX_QUEUED_BYTES and not self._client_gone:
            self._queue_taken.clear()
            await self._queue_taken.wait()

    async def _write(self, send: Send) -> None:
        """Sends the answer to the client, at its pace, until its last message or until it leaves."""
        ids: EventIds | None = None
        while not self._client_gone:
            await self._queue_news.wait()
            self._queue_news.clear()
            while self._queue:
                message = self._queue.popleft()
                if message["type"] == "http.response.start":
                    if self._with_ids and is_event_stream(message["headers"]):
                        ids = EventIds(self._run)
                    await send(own_head(message))
                    continue
                body = message.get("body", b"")
                self._queued_bytes -= len(body)
                self._queue_taken.set()
                is_last = not message.get("more_body")
                await send(message if ids is None else {**message, "body": ids.mark(body, is_last=is_last)})
                if is_last:
                    return

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._client_gone = True
        self._queue.clear()
        self._queue_news.set()
        self._queue_taken.set()
        if self._kept is not Kept.KEPT:
            self._abort.set()


async def _at_most(seconds: float, event: asyncio.Event) -> None:
    """Waits for the event, no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _is_complete(scope: Scope) -> bool:
    recorder = scope.get(RECORDER)
    return recorder is not None and recorder.outcome in _COMPLETE and recorder.fault is None
