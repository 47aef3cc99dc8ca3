"""The way in of a request's body: from callers with a key, bounded each and in sum.

Nothing is read before the caller is known: the first `receive` of a body looks for a good key or session, unless the
route is one that needs none (a webhook, the sign-in form: each has a small bound) or looks itself (the metered ones).
This look may use the cached directory; the route's own is fresh, so a revocation still counts at once.

The sum of all bodies counts from before the first byte until the answer begins. Past it a request is answered 503
before its body is read. What needs no key has an eighth as much of its own, so that anonymous senders cannot use up
what callers with a key need.
"""

from collections.abc import Mapping

from starlette.types import Message, Receive, Scope

from api.auth.credentials import authenticate
from api.http.body import BodyTooLarge
from core.errors import Unavailable
from core.tenancy.directory import Directory

_ANONYMOUS_SHARE = 8


class _Budget:
    """Bytes that may be held at once."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def take(self, size: int) -> None:
        """Raises Unavailable when they are not left."""
        if size > self._left:
            raise Unavailable("too many request bodies are being read: come back in a moment", retry_after_s=1)
        self._left -= size

    def give_back(self, size: int) -> None:
        """They are free again."""
        self._left += size


class BodyAdmission:
    """One per process. `keyless` maps (method, path) of routes that need no key, or ask for it, to their bound."""

    def __init__(
        self,
        directory: Directory,
        *,
        max_body_bytes: int,
        max_bytes: int,
        metered: frozenset[tuple[str, str]],
        keyless: Mapping[tuple[str, str], int],
    ) -> None:
        self.directory = directory
        self.metered = metered
        self.keyless = keyless
        self.max_body_bytes = max_body_bytes
        self.known = _Budget(max_bytes)
        self.anonymous = _Budget(max(max_bytes // _ANONYMOUS_SHARE, max_body_bytes))

    def open(self, scope: Scope, receive: Receive) -> "Body":
        """The body of a request, read by nobody yet."""
        declared: int | None = 0
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                declared = int(value)
            elif name == b"transfer-encoding":
                declared = None
                break
        return Body(self, scope, receive, declared)


class Body:
    """A request's body. Call it as `receive`: it raises Unauthenticated, ForeignOrigin, BodyTooLarge, Unavailable.

    `declared`: its length as its head says, 0 where there is none; None where it comes in chunks.
    """

    __slots__ = ("_admitted", "_budget", "_declared", "_held", "_intake", "_max_bytes", "_read", "_receive", "_scope")

    def __init__(self, intake: BodyAdmission, scope: Scope, receive: Receive, declared: int | None) -> None:
        self._intake = intake
        self._scope = scope
        self._receive = receive
        self._declared = declared
        self._admitted = declared == 0
        self._held = self._read = 0
        self._budget = intake.known
        self._max_bytes = intake.max_body_bytes

    async def __call__(self) -> Message:
        """The next part, once the caller may send it."""
        if not self._admitted:
            await self._admit()
            self._admitted = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
        return message

    def release(self) -> None:
        """Its bytes no longer count. Idempotent."""
        self._budget.give_back(self._held)
        self._held = 0

    async def _admit(self) -> None:
        intake, route = self._intake, (self._scope["method"], self._scope["path"])
        if route in intake.keyless:
            self._max_bytes = min(intake.keyless[route], intake.max_body_bytes)
            self._budget = intake.anonymous
        elif route not in intake.metered:
            await authenticate(intake.directory, self._scope)
        if self._declared is not None:
            if self._declared > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            self._hold(self._declared)

    def _count(self, size: int) -> None:
        self._read += size
        if self._read > self._max_bytes:
            raise BodyTooLarge(self._max_bytes)
        if self._read > self._held and self._declared is None:
            self._hold(self._read - self._held)

    def _hold(self, size: int) -> None:
        self._budget.take(size)
        self._held += size
