"""Reading a request's body: bounded, of the right media type, and once for whoever wants it."""

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from core.errors import NakaError


class BodyTooLarge(NakaError):
    """More bytes than the setting allows."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the body may have at most {max_bytes} bytes")


class WrongMediaType(NakaError):
    """The body is not said to be JSON."""

    def __init__(self) -> None:
        super().__init__("the body must be application/json")


class InvalidBody(NakaError):
    """The body does not have the documented form."""


class ClientLeft(Exception):
    """The client went away before its request was whole: nobody is there to answer."""


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int) -> bytes:
    """The whole JSON body. Raises WrongMediaType, BodyTooLarge, ClientLeft."""
    headers = Headers(scope=scope)
    if not _is_json(headers.get("content-type", "")):
        raise WrongMediaType
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise BodyTooLarge(max_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):  # nearly always: one message
        body: bytes = message.get("body", b"")
        if len(body) > max_bytes:
            raise BodyTooLarge(max_bytes)
        return body
    return await _read_on(message, receive, max_bytes)


async def _read_on(message: Message, receive: Receive, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise BodyTooLarge(max_bytes)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body again, and after it whatever else comes (the client's leaving)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
