"""Raw requests on a socket, and the exact format of problems."""

import json
import socket
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any

from tests.harness import Account, Api

CANARY = "xylophone"
"""A word sent in refused requests, which no response may contain."""
JSON_TYPE = "content-type: application/json"


class Reply:
    """An HTTP response, parsed strictly by the standard library."""

    def __init__(self, connection: socket.socket) -> None:
        response = HTTPResponse(connection)
        response.begin()
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def is_problem(self, status: int, code: str, **extra: Any) -> None:
        """Asserts the exact problem."""
        assert (self.status, self.headers["content-type"]) == (status, "application/problem+json"), self.body
        problem = json.loads(self.body)
        detail = problem.pop("detail")
        assert problem == {
            "type": f"urn:naka:problem:{code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "code": code,
            "request_id": self.headers["x-request-id"],
            **extra,
        }
        assert detail
        assert CANARY.encode() not in self.body
        assert self.headers.get("www-authenticate") == ("Bearer" if status == HTTPStatus.UNAUTHORIZED else None)


def send(api: Api, data: bytes) -> Reply:
    """Sends the bytes and returns the response."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(data)
        return Reply(connection)


def head(line: str, *headers: str) -> bytes:
    """Returns a request head; headers may have non-ASCII bytes."""
    return "\r\n".join([f"{line} HTTP/1.1", "host: naka", *headers, "", ""]).encode("latin-1")


def post(account: Account | None, body: bytes, *headers: str) -> bytes:
    """Returns a request to `/chat` with this body."""
    key = () if account is None else (f"authorization: Bearer {account.key}",)
    return head("POST /chat", *key, *(headers or (JSON_TYPE,)), f"content-length: {len(body)}") + body


def sized(size: int) -> bytes:
    """Returns a valid body of exactly so many bytes."""
    frame = b'{"message":""}'
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


def chunked(body: bytes) -> bytes:
    """Returns the body in chunks of 1000 bytes."""
    parts = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
