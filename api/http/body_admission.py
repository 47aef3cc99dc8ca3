"""Admission of request bodies: only from authenticated callers, bounded each and in total.

The first `receive` of a body checks the key or session, unless the route needs none (webhook, sign-in form: each has a
small bound) or checks it itself (metered routes). This check may use the cached directory; the route's own is fresh,
so a revocation takes effect at once.

Bytes count towards the total from before the first one until the response starts, or the provider's answer. Beyond the
total a request gets 503 before its body is read. So it does once its tenant holds as much as is free (the rule of
`core.resilience.shares`): one tenant alone gets half of the total or one body more, and others find room. Routes
without a key have a separate total, an eighth of it, so that anonymous callers cannot use up the budget of
authenticated ones.
"""

from collections.abc import Hashable, Mapping
from types import MappingProxyType

from starlette.types import Message, Receive, Scope

from api.auth.credentials import PRINCIPAL
from api.auth.identities import Identities
from api.http.body import BodyTooLarge
from core.errors import Unavailable

HOLD = "naka.hold_body"
"""The scope key of `Body.hold`."""
RELEASE = "naka.release_body"
"""The scope key of `Body.release`, for an answer that begins long before its head is sent."""
_ANONYMOUS_SHARE = 8


class _Budget:
    """Bytes that may be held at once. An owner takes more only while it holds less than is free.

    A body whose length nobody declared is asked for as it grows, by the rule of one that was declared: `so_far`, what
    it has taken itself, counts as free.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._held: dict[Hashable, int] = {}

    def take(self, owner: Hashable, size: int, so_far: int = 0) -> None:
        """Raises Unavailable when fewer are left, or the owner has its share. An owner of None has no share."""
        held = self._held.get(owner, 0)
        if size > self._left or (owner is not None and held - so_far >= self._left + so_far):
            raise Unavailable("The server is busy. Try again.", retry_after_s=1)
        self._left -= size
        self._held[owner] = held + size

    def give_back(self, owner: Hashable, size: int) -> None:
        """Frees bytes of the owner."""
        self._left += size
        left = self._held.get(owner, 0) - size
        if left:
            self._held[owner] = left
        else:
            self._held.pop(owner, None)


class BodyAdmission:
    """One per process. `keyless` maps (method, path) of routes that need no key to their bound in bytes.

    `bounds`: those of routes whose bound is not `max_body_bytes`. `metered`: routes that check the key themselves.
    """

    def __init__(
        self,
        identities: Identities,
        *,
        max_body_bytes: int,
        max_bytes: int,
        metered: frozenset[tuple[str, str]],
        keyless: Mapping[tuple[str, str], int],
        bounds: Mapping[tuple[str, str], int] = MappingProxyType({}),
    ) -> None:
        self.identities = identities
        self.metered = metered
        self.keyless = keyless
        self.bounds = bounds
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
        *("_max_bytes", "_owner", "_read", "_receive", "_scope"),
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
        self._owner: Hashable = None

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
        self._budget.give_back(self._owner, self._held)
        self._held = 0

    def hold(self, size: int) -> None:
        """Takes memory for what the body becomes when it is decoded; gives it back if negative. Raises Unavailable."""
        if size < 0:
            self._budget.give_back(self._owner, -size)
        else:
            self._budget.take(self._owner, size, self._held)
        self._held += size

    async def _admit(self) -> None:
        admission, route = self._admission, (self._scope["method"], self._scope["path"])
        if route in admission.keyless:
            self._max_bytes = min(admission.keyless[route], admission.max_body_bytes)
            self._budget = admission.anonymous
        else:
            self._max_bytes = admission.bounds.get(route, admission.max_body_bytes)
            if route not in admission.metered:
                await admission.identities.principal_of(self._scope)
            principal = self._scope.get(PRINCIPAL)
            self._owner = None if principal is None else principal.tenant_id
        if self._declared is not None:
            if self._declared > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            self.hold(self._declared)

    def _count(self, size: int) -> None:
        self._read += size
        if self._read > self._max_bytes:
            raise BodyTooLarge(self._max_bytes)
        if self._read > self._held and self._declared is None:
            self.hold(self._read - self._held)
