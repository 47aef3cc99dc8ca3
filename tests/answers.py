"""Answers of `/chat`, parsed."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx2


@dataclass
class Answer:
    """A complete answer of `/chat`."""

    status: int
    headers: httpx2.Headers
    pieces: list[str] = field(default_factory=list)
    done: bool = False
    error: dict[str, Any] | None = None
    raw: bytes = b""
    end: dict[str, Any] = field(default_factory=dict)
    """What the end told beside that it is the end."""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def retry_after_s(self) -> int:
        """The Retry-After header."""
        return int(self.headers["retry-after"])


def parse_sse(body: bytes) -> list[tuple[str, str]]:
    """Returns (event, data) of each event, strictly by the WHATWG's rules for event streams."""
    text = body.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events: list[tuple[str, str]] = []
    name, data = "", list[str]()
    for line in text.split("\n")[:-1]:
        if not line:
            if data:
                events.append((name or "message", "\n".join(data)))
            name, data = "", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
    return events


def read_answer(response: httpx2.Response, body: bytes) -> Answer:
    """Parses an answer from its body."""
    answer = Answer(response.status_code, response.headers, raw=body)
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        answer.error = json.loads(body) if body else None
        return answer
    for event, data in parse_sse(body):
        if event == "message":
            answer.pieces.append(data)
        elif event == "done":
            answer.done, answer.end = True, json.loads(data or "{}")
        elif event == "error":
            answer.error = json.loads(data)
    return answer
