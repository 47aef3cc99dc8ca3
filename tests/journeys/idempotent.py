"""Requests with an `Idempotency-Key`, and the processes that serve them."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import httpx2

from tests.answers import Answer
from tests.harness import Account, Api, client
from tests.journeys.forms import ALL_FORMS, CHAT, PLAIN, SOCKET, Form

HTTP_FORMS = [form for form in ALL_FORMS if form is not SOCKET]
ON = {"IDEMPOTENCY_MINUTES": "5", "HEARTBEAT_S": "0.2", "DEAD_AFTER_S": "2"}
HEADERS = {"anthropic-version": "2023-06-01", "content-type": "application/json"}


def key_lines(key: str) -> bytes:
    """Further lines of a `Caller`'s head, so that it sends the same request as `ask`."""
    return f"idempotency-key: {key}\r\n".encode()


async def ask(
    http: httpx2.AsyncClient,
    account: Account,
    key: str,
    message: str,
    form: Form = CHAT,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """Sends a message with a key and reads the whole answer. Raises the client's error for one that is cut off."""
    sent = {**HEADERS, **account.headers, "accept": form.accept, "idempotency-key": key, **headers}
    content = json.dumps(form.body(message))  # the bytes of `Form.request`
    async with http.stream("POST", form.path, content=content, headers=sent) as response:
        body = await response.aread()
        if form is PLAIN and response.status_code == httpx2.codes.OK:
            return Answer(200, response.headers, [body.decode()], done=True, raw=body)
        return form.read(response, body)


async def ask_each(
    apis: Iterable[Api], count: int, account: Account, key: str, message: str, form: Form = CHAT
) -> list[Answer | httpx2.HTTPError]:
    """Asks `count` times at each of the processes, all at once; a cut connection is its error."""

    async def one(http: httpx2.AsyncClient) -> Answer | httpx2.HTTPError:
        try:
            return await ask(http, account, key, message, form)
        except httpx2.HTTPError as error:
            return error

    async def many(api: Api) -> list[Answer | httpx2.HTTPError]:
        async with client(api.url) as http:
            return await asyncio.gather(*(one(http) for _ in range(count)))

    return [answer for answers in await asyncio.gather(*(many(api) for api in apis)) for answer in answers]


async def until(condition: Callable[[], Awaitable[Any]], *, within_s: float = 15) -> Any:
    """Polls until the condition is met, and returns its value."""
    deadline = time.monotonic() + within_s
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.02)
