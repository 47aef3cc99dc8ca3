"""Long answers, sent as they are read: in constant memory, however many rows there are.

Such an answer keeps a database connection of the reports' pool until its end, so a client that reads nothing for
`CLIENT_WRITE_TIMEOUT_S` is disconnected. A failure in the middle cuts the connection too, so that no client takes a
part for the whole.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Self

from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from api.http.body import ClientLeft
from core.logs import get_logger

log = get_logger(__name__)


class StreamedAnswer(StreamingResponse):
    """Starts once the first rows are there, and closes its transaction however the answer ends."""

    @classmethod
    async def begin(
        cls, chunks: AsyncGenerator[str, None], media_type: str, *, write_timeout_s: float, filename: str | None = None
    ) -> Self:
        """Raises what the query raises, while there still can be a status for it. A file has a name."""
        headers = {"cache-control": "no-store"}
        if filename is not None:
            headers["content-disposition"] = f'attachment; filename="{filename}"'
        response = cls(_with_first(await anext(chunks), chunks), media_type=media_type, headers=headers)
        response._chunks = chunks
        response._write_timeout_s = write_timeout_s
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it; a client that leaves or does not read ends the query.

        Raises ClientLeft then, so that the server cuts the connection, whose answer is not whole.
        """

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await send(message)
            except TimeoutError as error:
                log.warning("reader_too_slow", path=scope["path"], timeout_s=self._write_timeout_s)
                raise ClientLeft from error

        try:
            async with aclosing(self._chunks):
                await super().__call__(scope, receive, send_in_time)
        except ClientDisconnect as error:
            raise ClientLeft from error

    _chunks: AsyncGenerator[str, None]
    _write_timeout_s: float


async def _with_first(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    yield first
    async for chunk in rest:
        yield chunk
