"""Long answers, sent as they are read: in constant memory, however many rows there are.

Such an answer keeps a database connection of the reports' pool until its end, so a reader that takes nothing for
`CLIENT_WRITE_TIMEOUT_S` is cut off, and its connection given back.
A break in the middle cuts the connection, so that nobody takes a part for the whole. CSV is for spreadsheets: it
begins with a byte order mark, without which Excel reads UTF-8 as another encoding, and a text that would be run as a
formula is defused with a leading apostrophe. Programs read JSON.
"""

import asyncio
import csv
import unicodedata
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from decimal import Decimal
from io import StringIO
from typing import Annotated, Literal, Self

from fastapi import Query
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from api.http.body import ClientLeft
from core.logs import get_logger

Form = Annotated[Literal["json", "csv"], Query(alias="format")]
BATCH_ROWS = 500
BYTE_ORDER_MARK = "\ufeff"
_FORMULA_STARTS = ("=", "+", "-", "@")
_CONTROLS = ("\t", "\r", "\n")

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
        response = cls(_again(await anext(chunks), chunks), media_type=media_type, headers=headers)
        response._chunks = chunks
        response._write_timeout_s = write_timeout_s
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it; a client that leaves or does not read ends the query.

        Raises ClientLeft then, if the server tells: the server cuts the connection, whose answer is not whole.
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


async def as_csv(
    batches: AsyncGenerator[Iterable[Sequence[object]], None], columns: Sequence[str]
) -> AsyncGenerator[str, None]:
    """The names of the columns, and a line a row."""
    text = StringIO()
    text.write(BYTE_ORDER_MARK)
    writer = csv.writer(text)
    writer.writerow(columns)
    async with aclosing(batches):
        async for rows in batches:
            writer.writerows([cell(value) for value in row] for row in rows)
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def cell(value: object) -> str:
    """A value in CSV; None is empty. Only texts can be a formula: what is ours (ids, days, sums) never is."""
    if value is None:
        return ""
    # A sum comes as a Decimal, and that of 10000 calls itself 1E+4: programs that read digits would stumble.
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    return f"'{text}" if isinstance(value, str) and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet might run it: also after blanks, and with the full-width signs of East Asian keyboards."""
    start = unicodedata.normalize("NFKC", text.lstrip()[:1])
    return text.startswith(_CONTROLS) or start.startswith(_FORMULA_STARTS)


async def _again(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    yield first
    async for chunk in rest:
        yield chunk
