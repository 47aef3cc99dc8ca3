"""Request bodies: bounded, and JSON."""

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from core.errors import NakaError


class BodyTooLarge(NakaError):
    """The body has more bytes than the setting allows."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The body may have at most {max_bytes} bytes.")


class WrongMediaType(NakaError):
    """The content type is not JSON."""

    def __init__(self) -> None:
        super().__init__("The body must be application/json.")


class InvalidBody(NakaError):
    """The body does not have the documented form."""


class ClientLeft(Exception):
    """The client disconnected before its request was complete."""


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int) -> bytes:
    """Returns the JSON body. Raises WrongMediaType, BodyTooLarge, ClientLeft."""
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
    """Collects the parts and joins them once."""
    parts, size = list[bytes](), 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientLeft
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > max_bytes:
            raise BodyTooLarge(max_bytes)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
