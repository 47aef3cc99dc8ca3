"""The three forms of a metered request: `/chat`, and `/v1/messages` streamed and whole. One kit of tests runs for all.

A fault is named by its status and code on `/chat`; `Form.told` says what the same fault is on `/v1/messages`.
"""

import json
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.answers import Answer, parse_sse, read_answer
from tests.harness import Account

MODEL = "claude-sonnet-4-6"
MAX_TOKENS = 2048
"""The defaults of `/chat`, so that one prompt is one grant in every form."""
_TYPES = {
    413: "request_too_large",
    504: "timeout_error",
    529: "overloaded_error",
    429: "rate_limit_error",
}
_BUSY = frozenset({"upstream_overloaded", "upstream_rate_limited", "upstream_busy"})


@dataclass(frozen=True)
class Form:
    """One form: how to ask, and how to read what comes."""

    name: str
    path: str = "/v1/messages"
    streams: bool = True

    @property
    def is_chat(self) -> bool:
        """Whether it is `/chat`."""
        return self.path == "/chat"

    def body(self, message: str, **more: Any) -> dict[str, Any]:
        """The request's body."""
        if self.is_chat:
            return {"message": message, **more}
        turns = [{"role": "user", "content": message}]
        return {"model": MODEL, "max_tokens": MAX_TOKENS, "messages": turns, "stream": self.streams, **more}

    async def ask(self, http: httpx2.AsyncClient, account: Account, message: str = "hello", **more: Any) -> Answer:
        """Sends a message and reads the whole answer."""
        headers = account.headers if self.is_chat else {**account.headers, "anthropic-version": "2023-06-01"}
        async with http.stream("POST", self.path, json=self.body(message, **more), headers=headers) as response:
            return self.read(response, await response.aread())

    def request(self, account: Account, message: str, *, connection: str = "keep-alive") -> bytes:
        """The bytes of a request."""
        body = json.dumps(self.body(message)).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: naka\r\nauthorization: Bearer {account.key}\r\n"
            f"anthropic-version: 2023-06-01\r\nconnection: {connection}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def frame_end(self, text: str) -> str:
        """What ends the frame of a piece of text, on the wire."""
        if self.is_chat:
            return text.splitlines()[-1] + "\n"
        return json.dumps(text, ensure_ascii=False)[1:]

    def read(self, response: httpx2.Response, body: bytes) -> Answer:
        """Parses an answer: a whole message is one piece."""
        if self.is_chat:
            return read_answer(response, body)
        answer = Answer(response.status_code, response.headers, raw=body)
        if response.headers["content-type"].startswith("text/event-stream"):
            assert self.streams
            _read_events(answer, body)
            return answer
        told = json.loads(body)
        if response.status_code != httpx2.codes.OK:
            answer.error = told
            return answer
        assert not self.streams
        answer.pieces = ["".join(block.get("text", "") for block in told["content"])]
        answer.done = told.get("stop_reason") is not None
        return answer

    def assert_told(self, answer: Answer, status: int, code: str, *, started: bool) -> None:
        """Asserts a fault. `status`: of the fault itself; `started`: whether the provider's answer had begun."""
        if not self.is_chat and code in _BUSY:
            status = 529
        assert answer.error is not None
        assert not answer.done
        assert answer.status == (200 if started and self.streams else status)
        if self.is_chat:
            assert (answer.error["status"], answer.error["code"]) == (status, code)
        else:
            assert answer.error["type"] == "error"
            assert answer.error["error"]["type"] == _TYPES.get(status, "api_error")
            assert answer.headers["request-id"] == answer.headers["x-request-id"]
        assert answer.error["request_id"] == answer.headers["x-request-id"]


def _read_events(answer: Answer, body: bytes) -> None:
    for event, data in parse_sse(body):
        assert not answer.done, "something follows message_stop"
        assert answer.error is None, "something follows an error"
        told = json.loads(data)
        assert told["type"] == event
        match told:
            case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}:
                answer.pieces.append(text)
            case {"type": "message_stop"}:
                answer.done = True
            case {"type": "error"}:
                answer.error = told
            case _:
                pass


CHAT = Form("chat", path="/chat")
STREAMED = Form("streamed")
WHOLE = Form("whole", streams=False)
FORMS = (CHAT, STREAMED, WHOLE)
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
