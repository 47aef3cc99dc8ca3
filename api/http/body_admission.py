"""Admission of request bodies: only from authenticated callers, bounded each and in total.

The first `receive` of a body checks the key or session, unless the route needs none (webhook, sign-in form: each has a
small bound) or checks it itself (metered routes). This check may use the cached directory; the route's own is fresh,
so a revocation takes effect at once.

Bytes count towards the total from before the first one until the response starts. Beyond the total a request gets 503
before its body is read. Routes without a key have a separate total, an eighth of it, so that anonymous callers cannot
use up the budget of authenticated ones.
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
        """Raises Unavailable when fewer are left."""
        if size > self._left:
            raise Unavailable("The server is busy. Try again.", retry_after_s=1)
        self._left -= size

    def give_back(self, size: int) -> None:
        self._left += size


class BodyAdmission:
    """One per process. `keyless` maps (method, path) of routes that need no key to their bound in bytes."""

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
        self.authenticated = _Budget(max_bytes)
        self.anonymous = _Budget(max(max_bytes // _ANONYMOUS_SHARE, max_body_bytes))

    def is_metered(self, scope: Scope) -> bool:
        """Whether the request's route is metered."""
        return (scope["method"], scope["path"]) in self.metered

    def open(self, scope: Scope, receive: Receive) -> "Body":
        """Returns the unread body of a request."""
        declared: int | None = 0
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                declared = int(value)
            elif name == b"transfer-encoding":
                declared = None
                break
        return Body(self, scope, receive, declared)


class Body:
    """A request's body, called as `receive`. Raises Unauthenticated, ForeignOrigin, BodyTooLarge, Unavailable.

    `declared` is its `content-length`: 0 without a body, None for a chunked one.
    """

    __slots__ = (
        *("_admission", "_admitted", "_budget", "_declared", "_held"),
        *("_max_bytes", "_read", "_receive", "_scope"),
    )

    def __init__(self, admission: BodyAdmission, scope: Scope, receive: Receive, declared: int | None) -> None:
        self._admission = admission
        self._scope = scope
        self._receive = receive
        self._declared = declared
        self._admitted = declared == 0
        self._held = self._read = 0
        self._budget = admission.authenticated
        self._max_bytes = admission.max_body_bytes

    async def __call__(self) -> Message:
        """Returns the next part, after admitting the caller."""
        if not self._admitted:
            await self._admit()
            self._admitted = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
        return message

    def release(self) -> None:
        """Returns the held bytes to the budget. Idempotent."""
        self._budget.give_back(self._held)
        self._held = 0

    async def _admit(self) -> None:
        admission, route = self._admission, (self._scope["method"], self._scope["path"])
        if route in admission.keyless:
            self._max_bytes = min(admission.keyless[route], admission.max_body_bytes)
            self._budget = admission.anonymous
        elif route not in admission.metered:
            await authenticate(admission.directory, self._scope)
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
