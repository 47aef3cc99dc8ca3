"""The answer of a followed run, sent to one more client at its own pace.

The head names the request that was billed. Nothing is sent of a run that died before its head, so that another can
take its place; a client in the middle of an answer is cut off, and asks again.
"""

import asyncio

import structlog
from starlette.types import Receive, Scope, Send

from api.gateway.idempotency.errors import too_large
from api.gateway.idempotency.event_ids import EventIds, is_event_stream
from api.gateway.idempotency.following import FollowedRun
from api.gateway.idempotency.heads import decode_head, replayed_head
from api.gateway.idempotency.keys import Kind
from api.gateway.idempotency.store import State
from api.http.body_admission import RELEASE
from api.http.problems import REQUEST_ID
from core.errors import NakaError, Unavailable
from core.tasks import end


class RunDied(Exception):
    """The run ended without an answer, and nothing was sent."""


class AnswerBroken(NakaError):
    """The run ended in the middle of its answer, a part of which was sent."""


class Replay:
    """One client. `ids`: those of its events, if it wants any; `news` is set when there is more to send."""

    def __init__(
        self, followed: FollowedRun, news: asyncio.Event, scope: Scope, send: Send, ids: EventIds | None
    ) -> None:
        self._followed = followed
        self._news = news
        self._scope = scope
        self._send = send
        self._ids = ids
        self._at = 0
        self._client_gone = False

    async def run(self, receive: Receive) -> None:
        """Sends the answer to its end, or until the client leaves.

        Raises RunDied, IdempotencyConflict or Unavailable if nothing was sent, AnswerBroken otherwise.
        """
        watcher = asyncio.create_task(self._watch(receive), name="replay-client")
        try:
            while not self._client_gone:
                self._news.clear()
                if self._at < len(self._followed.items):
                    if await self._send_items():
                        return
                elif self._followed.state is not State.LIVE:
                    raise self._broken()
                else:
                    await self._news.wait()  # the run's reader ends, at the latest when its lease does
        finally:
            await end(watcher)

    async def _send_items(self) -> bool:
        """Sends what has come; returns whether it is the end."""
        items = self._followed.items[self._at :]
        if self._at == 0:
            await self._send_head(items.pop(0)[1])
            self._at = 1
        self._at += len(items)
        body = b"".join(data for kind, data in items if kind is Kind.BODY)
        is_last = bool(items) and items[-1][0] in {Kind.COMPLETE, Kind.FAILED}
        if self._ids is not None:
            body = self._ids.mark(body, is_last=is_last)
        if body or is_last:
            await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})
        return is_last

    async def _send_head(self, data: bytes) -> None:
        head = decode_head(data)
        self._scope[RELEASE]()
        self._scope[REQUEST_ID] = head.request_id
        structlog.contextvars.bind_contextvars(request_id=head.request_id)
        if not is_event_stream(head.headers):
            self._ids = None
        await self._send(replayed_head(head))

    def _broken(self) -> Exception:
        if self._at:
            return AnswerBroken("The answer broke off.")
        if self._followed.is_unreachable:
            return Unavailable("The store of answers does not reply. Try again.")
        return too_large() if self._followed.state is State.LARGE else RunDied()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._client_gone = True
        self._news.set()
