"""One question of a WebSocket as an HTTP exchange: its body in; the lines of its answer, or its refusal, as frames."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import Message, Send


class Exchange:
    """The `receive` and `send` of one question."""

    def __init__(
        self,
        body: bytes,
        take_early: Callable[[], Awaitable[bool]],
        send_frame: Callable[[dict[str, Any]], Awaitable[None]],
        send: Send,
        drained: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._body: bytes | None = body
        self._take_early = take_early
        self._send_frame = send_frame
        self._send = send
        self._drained = drained
        self._status = 0
        self._retry_after: str | None = None
        self._refusal = b""
        self.is_complete = False

    async def receive(self) -> Message:
        """The body, then the client's leaving."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        while not self.is_complete and not await self._take_early():
            pass
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Lines of an answer as they come, at the client's pace; a refusal as one frame."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._retry_after = Headers(raw=message["headers"]).get("retry-after")
            return
        body, is_last = message.get("body", b""), not message.get("more_body")
        if self._status == HTTPStatus.OK:
            for line in body.splitlines():
                with suppress(OSError):  # the client left
                    await self._send({"type": "websocket.send", "text": line.decode()})
            if self._drained is not None:  # what the relay wrote by itself counts, too
                await self._drained()
        else:
            self._refusal += body
            if is_last:
                error = msgspec.json.decode(self._refusal)
                await self._send_frame({"error": error, **wait_of(self._retry_after)})
        self.is_complete = self.is_complete or is_last


def wait_of(retry_after: str | None) -> dict[str, int]:
    """The field of a refusal's frame that `Retry-After` becomes."""
    return {} if retry_after is None else {"retry_after_s": int(retry_after)}
