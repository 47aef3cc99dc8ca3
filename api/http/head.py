"""HEAD for every GET route: the same head without the body, `content-length` included (RFC 9110, 9.3.2).

The application sees a GET. A streamed answer is ended after its first piece.
"""

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASKED_HEAD = "naka.head"
"""The scope key that is true when the client asked for the head only."""


class _HeadSent(Exception):
    """The head was sent; ends a streamed answer."""


class HeadMiddleware:
    """Answers HEAD as GET; passes other methods on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application; the server itself writes no body for HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body"):
                raise _HeadSent

        with suppress(_HeadSent):
            await self._app({**scope, "method": "GET", ASKED_HEAD: True}, receive, send_head)
