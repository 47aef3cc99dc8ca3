"""Turns on the routes that are not metered: a caller's burst does not take the process's time from other callers.

Of each key, session or network a few requests work at once, up to their heads (and the delay of a 429); its others wait
for their turn, at most 20 s, then 503. Paths with many clients behind one address, or that have to answer at once, are
exempt.
"""

import contextlib
from collections.abc import Hashable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.credentials import credential_of
from api.http.client_address import client_address, network_of
from core.errors import NakaError
from core.resilience.turns import Turns

AT_ONCE = 3
_WAIT_S = 20.0
_EXEMPT = ("/static/", "/webhooks/", "/healthz", "/readyz", "/metrics")


class TurnsMiddleware:
    """Runs the application when it is the caller's turn. Raises PoolFull."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns = Turns("requests", AT_ONCE, wait_s=_WAIT_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ends the turn with the head of the answer."""
        if scope["type"] != "http" or scope["path"].startswith(_EXEMPT):
            await self._app(scope, receive, send)
            return
        end_turn = await self._turns.take(_caller_of(scope))

        async def send_head(message: Message) -> None:
            await send(message)
            end_turn()

        try:
            await self._app(scope, receive, send_head)
        finally:
            end_turn()


def _caller_of(scope: Scope) -> Hashable:
    """The request's key or session, else its network."""
    with contextlib.suppress(NakaError):  # an unreadable key: the route refuses it
        if (credential := credential_of(scope)) is not None:
            return credential
    return network_of(client_address(scope))
