"""The WebSocket on `/chat`: each question is an ordinary HTTP request to the same application, answered in frames.

In: the body of a `POST /chat` as a text frame. Out: `{"text": ...}` frames, then `{"done": true}`, or `{"error": ...}`
with a problem, and `retry_after_s` where an HTTP answer has `Retry-After`. One question is answered at a time; a few
that come early wait. Headers of the handshake (`Naka-User`, `Naka-Tags`, tracing) are those of each question, and so is
the credential, which is checked again for each.

A client says who it is by `Authorization` or `x-api-key`; a browser, which cannot set headers, by the subprotocols
`naka` and `naka.bearer.<credential>`, or in its first frame, `{"authorization": "Bearer <credential>"}`, or by the
session cookie of our own pages. Never in the URL, which proxies log. A page of another origin than ours and
CORS_ORIGINS is refused, because browsers send its handshake without asking.
"""

from collections import deque
from collections.abc import Collection
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.frames import CloseCode

from api.auth.credentials import SECURE, credential_of
from api.auth.identities import Identities
from api.gateway.chat.forms import IN_SOCKET
from api.gateway.chat.socket_exchange import Exchange, wait_of
from api.http.body_admission import BodyAdmission
from api.http.problems import REQUEST_ID, problem_of, problem_response
from api.http.request_context import DIRECT_WRITE, AnswerCut
from api.http.websocket import CONNECTION, MAX_EARLY, TOO_EARLY, NakaWebSocket
from core.errors import NakaError, NotFound
from core.ids import uuid7
from core.resilience.deadline import within
from core.tenancy.principal import Forbidden, Principal, Unauthenticated
from core.tenancy.principal import Scope as KeyScope

PATH = "/chat"
SUBPROTOCOL = "naka"
_BEARER = "naka.bearer."
_OF_HANDSHAKE = (
    "connection",
    "upgrade",
    "sec-websocket-",
    "content-",
    "accept",
    "transfer-",
    "expect",
    "idempotency-",
)
"""The beginnings of headers that are not those of a question."""
_MAX_EARLY_BYTES = 64 * 1024
"""Of questions that wait for the running answer."""


class OriginNotAllowed(Forbidden):
    """The page's origin is neither ours nor one of CORS_ORIGINS."""

    def __init__(self) -> None:
        super().__init__("Pages of this origin may not use this server.", code="origin_not_allowed")


class Introduction(msgspec.Struct, frozen=True):
    """The first frame of a client that could not set headers."""

    authorization: str


class ChatSockets:
    """Accepts WebSockets on `/chat`; passes all else on to `app`."""

    def __init__(
        self,
        app: ASGIApp,
        identities: Identities,
        *,
        body_admission: BodyAdmission,
        origins: Collection[str],
        deadline_s: float,
        secure: bool,
    ) -> None:
        self.app = app
        self.body_admission = body_admission
        self._identities = identities
        self._origins = frozenset(origins)
        self._deadline_s = deadline_s
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs a conversation, or the application."""
        if scope["type"] == "websocket":
            await _Conversation(self, scope, receive, send).run()
        else:
            await self.app(scope, receive, send)

    async def authenticate(self, scope: Scope) -> Principal:
        """Returns the principal that may chat. Raises NakaError."""
        async with within(self._deadline_s):
            principal = await self._identities.principal_of({**scope})
        principal.require_any(KeyScope.CHAT, KeyScope.CHAT_AS_USER)
        return principal

    def question_scope(self, scope: Scope) -> Scope:
        """Returns the scope of the questions of a handshake. Raises OriginNotAllowed, NotFound."""
        if scope["path"] != PATH:
            raise NotFound("There is no WebSocket on this path.")
        headers = Headers(scope=scope)
        origin, host = headers.get("origin"), headers.get("host")
        is_ours = origin is None or urlsplit(origin).netloc == host
        if not is_ours and not {origin, "*"} & self._origins:
            raise OriginNotAllowed
        kept = [
            (name, value)
            for name, value in scope["headers"]
            if not name.decode("latin-1").startswith(_OF_HANDSHAKE) and (is_ours or name != b"cookie")
        ]
        offered = [protocol for protocol in scope["subprotocols"] if protocol.startswith(_BEARER)]
        kept += [(b"authorization", f"Bearer {protocol[len(_BEARER) :]}".encode("latin-1")) for protocol in offered]
        return {
            "type": "http",
            "asgi": scope["asgi"],
            "http_version": "1.1",
            "method": "POST",
            "scheme": {"ws": "http", "wss": "https"}[scope["scheme"]],
            "server": scope["server"],
            "client": scope["client"],
            "root_path": scope["root_path"],
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": scope["query_string"],
            "headers": kept,
            "state": scope.get("state", {}),
            IN_SOCKET: True,
            SECURE: self._secure,
        }


class _Conversation:
    """One connection."""

    def __init__(self, sockets: ChatSockets, scope: Scope, receive: Receive, send: Send) -> None:
        self._sockets = sockets
        self._scope = scope
        self._receive = receive
        self._send = send
        self._connection: NakaWebSocket | None = scope.get(CONNECTION)
        self._question: Scope = {}
        self._early = deque[bytes]()
        self._is_over = False

    async def run(self) -> None:
        """Accepts or refuses the handshake, and answers questions until the client leaves."""
        await self._receive()  # websocket.connect
        try:
            self._question = self._sockets.question_scope(self._scope)
            is_known = credential_of(self._question) is not None
            if is_known:
                self._admit(await self._sockets.authenticate(self._question))
        except NakaError as error:
            await self._refuse(error)
            return
        chosen = SUBPROTOCOL if SUBPROTOCOL in self._scope["subprotocols"] else None
        await self._send({"type": "websocket.accept", "subprotocol": chosen})
        if not is_known and not await self._introduced():
            return
        while (body := await self._next()) is not None:
            await self._answer(body)
            if self._connection is not None and self._connection.is_ending:
                await self._close(CloseCode.SERVICE_RESTART)

    async def _introduced(self) -> bool:
        """Whether the first frame has a credential that may chat; closes the connection otherwise."""
        body = await self._next()
        if body is None:
            return False
        try:
            try:
                credential = msgspec.json.decode(body, type=Introduction).authorization
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                raise Unauthenticated from None
            self._question["headers"].append((b"authorization", credential.encode()))
            self._admit(await self._sockets.authenticate(self._question))
        except NakaError as error:
            problem = problem_of(error, {REQUEST_ID: str(uuid7()), "path": PATH})
            await self._send_frame({"error": problem.body, **wait_of(problem.headers.get("retry-after"))})
            await self._close(CloseCode.POLICY_VIOLATION)
            return False
        return True

    def _admit(self, principal: Principal) -> None:
        if self._connection is None:
            return
        admission = self._sockets.body_admission

        def hold(size: int, so_far: int) -> None:
            if size < 0:
                admission.authenticated.give_back(principal.tenant_id, -size)
            else:
                admission.authenticated.take(principal.tenant_id, size, so_far)

        self._connection.admit(admission.max_body_bytes, hold)

    async def _next(self) -> bytes | None:
        """The next frame; None when the connection is over, whatever the client had asked before it left."""
        while not self._early and not self._is_over:
            await self._take()
        self._is_over = self._is_over or (self._connection is not None and self._connection.is_over)
        return None if self._is_over else self._early.popleft()

    async def _take(self) -> None:
        """Waits for a message. One that is no text closes the connection."""
        message = await self._receive()
        text = message.get("text")
        if message["type"] == "websocket.disconnect":
            self._is_over = True
        elif text is None:
            await self._close(CloseCode.UNSUPPORTED_DATA, "Send text frames.")
        else:
            self._early.append(text.encode())

    async def _answer(self, body: bytes) -> None:
        """Asks the application one question and sends its answer."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        scope = {**self._question, "headers": [*self._question["headers"], *headers]}
        if self._connection is not None:
            scope[DIRECT_WRITE] = self._connection.write_lines
            self._connection.begin_answer()
        drained = None if self._connection is None else self._connection.drained
        exchange = Exchange(body, self._take_early, self._send_frame, self._send, drained)
        try:
            await self._sockets.app(scope, exchange.receive, exchange.send)
        except AnswerCut:
            pass
        finally:
            if self._connection is not None:
                self._connection.end_answer()
        if not exchange.is_complete and not self._is_over:
            await self._close(CloseCode.INTERNAL_ERROR)

    async def _take_early(self) -> bool:
        """Keeps what the client sends during an answer, within bounds; returns whether it left."""
        if not self._is_over:
            await self._take()
        if len(self._early) > MAX_EARLY or sum(map(len, self._early)) > _MAX_EARLY_BYTES:
            await self._close(CloseCode.POLICY_VIOLATION, TOO_EARLY)
        return self._is_over

    async def _send_frame(self, frame: dict[str, Any]) -> None:
        with suppress(OSError):  # the client left
            await self._send({"type": "websocket.send", "text": msgspec.json.encode(frame).decode()})

    async def _close(self, code: int, reason: str = "") -> None:
        self._is_over = True
        with suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _refuse(self, error: NakaError) -> None:
        """Answers the handshake with a problem."""
        scope = {REQUEST_ID: str(uuid7()), "path": PATH}
        response = problem_response(error, scope)
        response.headers["x-request-id"] = scope[REQUEST_ID]
        head = {"type": "websocket.http.response.start", "status": response.status_code}
        with suppress(OSError):
            await self._send({**head, "headers": response.raw_headers})
            await self._send({"type": "websocket.http.response.body", "body": bytes(response.body)})
