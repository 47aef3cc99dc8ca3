"""The forms of a metered request: `/chat` in five, `/v1/messages` streamed and whole. One kit of tests runs for all.

A fault is named by its status and code on `/chat`; `Form.assert_told` says what the same fault is in each form.
"""

import json
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

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
    accept: str = "*/*"

    @property
    def is_chat(self) -> bool:
        """Whether it is a form of `/chat`, where errors are problems."""
        return self.path.startswith("/chat")

    @property
    def has_head(self) -> bool:
        """Whether a head tells the client that the answer begins."""
        return self.streams

    @property
    def refusal_head(self) -> str:
        """The beginning of a 503 that `Caller.rest` returns."""
        return "http/1.1 503 "

    def body(self, message: str, **more: Any) -> dict[str, Any]:
        """The request's body."""
        if self.is_chat:
            return {"message": message, **more}
        turns: list[dict[str, Any]] = [{"role": "user", "content": message}]
        return {"model": MODEL, "max_tokens": MAX_TOKENS, "messages": turns, "stream": self.streams, **more}

    async def ask(self, http: httpx2.AsyncClient, account: Account, message: str = "hello", **more: Any) -> Answer:
        """Sends a message and reads the whole answer."""
        headers = {**account.headers, "anthropic-version": "2023-06-01", "accept": self.accept}
        async with http.stream("POST", self.path, json=self.body(message, **more), headers=headers) as response:
            return self.read(response, await response.aread())

    def request(self, account: Account, message: str, *, connection: str = "keep-alive") -> bytes:
        """The bytes of a request."""
        body = json.dumps(self.body(message)).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: naka\r\nauthorization: Bearer {account.key}\r\n"
            f"anthropic-version: 2023-06-01\r\nconnection: {connection}\r\naccept: {self.accept}\r\n"
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


class PlainForm(Form):
    """`Accept: text/plain`: an answer that fails has no last chunk."""

    async def ask(self, http: httpx2.AsyncClient, account: Account, message: str = "hello", **more: Any) -> Answer:
        headers = {**account.headers, "accept": self.accept}
        async with http.stream("POST", self.path, json=self.body(message, **more), headers=headers) as response:
            if response.status_code != httpx2.codes.OK:
                return read_answer(response, await response.aread())
            assert response.headers["content-type"] == "text/plain; charset=utf-8"
            answer = Answer(response.status_code, response.headers)
            try:
                async for chunk in response.aiter_raw():
                    answer.raw += chunk
                answer.done = True
            except httpx2.RemoteProtocolError:
                pass
            answer.pieces = [answer.raw.decode()]
            return answer

    def frame_end(self, text: str) -> str:
        return text

    def assert_told(self, answer: Answer, status: int, code: str, *, started: bool) -> None:
        if started:
            assert (answer.status, answer.done, answer.error) == (200, False, None)
        else:
            super().assert_told(answer, status, code, started=False)


class JsonForm(Form):
    """`Accept: application/json`: one object with the text and its usage."""

    def read(self, response: httpx2.Response, body: bytes) -> Answer:
        answer = Answer(response.status_code, response.headers, raw=body)
        told = json.loads(body)
        if response.status_code != httpx2.codes.OK:
            answer.error = told
            return answer
        assert response.headers["content-type"] == "application/json"
        assert told["request_id"] == response.headers["x-request-id"]
        answer.pieces, answer.done, answer.end = [told.pop("text")], True, told
        return answer


class UiForm(Form):
    """`/chat/ui`: the UI message stream of the Vercel AI SDK."""

    def body(self, message: str, **more: Any) -> dict[str, Any]:
        turns = [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": message}]}]
        return {"id": "c1", "messages": turns, "trigger": "submit-message", **more}

    def frame_end(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=False)[1:] + "}"

    def read(self, response: httpx2.Response, body: bytes) -> Answer:
        if response.status_code != httpx2.codes.OK:
            return read_answer(response, body)
        assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
        answer = Answer(response.status_code, response.headers, raw=body)
        events = parse_sse(body)
        assert events.pop() == ("message", "[DONE]")
        parts = [json.loads(data) for _, data in events]
        kinds = [part["type"] for part in parts]
        end = ["finish-step", "finish"] if kinds[-1] == "finish" else ["error"]
        deltas = ["text-delta"] * kinds.count("text-delta")
        text = ["text-start", *deltas, "text-end"] if "text-start" in kinds else []
        assert kinds == ["start", "start-step", *text, *end]
        assert parts[0]["messageId"] == response.headers["x-request-id"]
        answer.pieces = [part["delta"] for part in parts if part["type"] == "text-delta"]
        if end == ["error"]:
            answer.error = json.loads(parts[-1]["errorText"])
        else:
            answer.done, answer.end = True, parts[-1]
        return answer


class SocketForm(Form):
    """A question on a WebSocket; there is no head, and an error is a frame whenever it comes."""

    @property
    def has_head(self) -> bool:
        return False

    @property
    def refusal_head(self) -> str:
        return ""

    async def ask(self, http: httpx2.AsyncClient, account: Account, message: str = "hello", **more: Any) -> Answer:
        url = f"ws://{http.base_url.host}:{http.base_url.port}{self.path}"
        answer = Answer(200, httpx2.Headers())
        async with connect(url, additional_headers=account.headers, compression=None, proxy=None) as socket:
            await socket.send(json.dumps(self.body(message, **more)))
            try:
                while not answer.done and answer.error is None:
                    frame: dict[str, Any] = json.loads(await socket.recv())
                    match frame:
                        case {"text": text}:
                            answer.pieces.append(text)
                        case {"done": True}:
                            del frame["done"]
                            answer.done, answer.end = True, frame
                        case {"error": error}:
                            answer.error, answer.status = error, error["status"]
                            answer.headers["retry-after"] = str(frame.get("retry_after_s", ""))
                            answer.headers["x-request-id"] = error["request_id"]
                        case other:
                            pytest.fail(f"no frame of an answer: {other}")
            except ConnectionClosed:
                pass
        return answer

    def handshake(self, account: Account) -> bytes:
        """The bytes of the request that opens the connection."""
        return (
            f"GET {self.path} HTTP/1.1\r\nhost: naka\r\nauthorization: Bearer {account.key}\r\n"
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        ).encode()

    def request(self, account: Account, message: str, *, connection: str = "keep-alive") -> bytes:
        """The frame of a question, after `handshake`."""
        del account, connection
        return Frame(Opcode.TEXT, json.dumps(self.body(message)).encode()).serialize(mask=True)

    def frame_end(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=False)[1:] + "}"

    def assert_told(self, answer: Answer, status: int, code: str, *, started: bool) -> None:
        del started
        assert answer.error is not None
        assert not answer.done
        assert (answer.error["status"], answer.error["code"]) == (status, code)


CHAT = Form("chat", path="/chat")
PLAIN = PlainForm("plain", path="/chat", accept="text/plain")
JSON = JsonForm("json", path="/chat", streams=False, accept="application/json")
UI = UiForm("ui", path="/chat/ui")
SOCKET = SocketForm("socket", path="/chat")
STREAMED = Form("streamed")
WHOLE = Form("whole", streams=False)
FORMS = (CHAT, STREAMED, WHOLE)
"""The forms that differ on the wire between Naka and a client of plain HTTP; what is alike is tested in these."""
ALL_FORMS = (*FORMS, PLAIN, JSON, UI, SOCKET)
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
all_forms = pytest.mark.parametrize("form", ALL_FORMS, ids=lambda form: form.name)
