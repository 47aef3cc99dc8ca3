"""HEAD wherever GET is: the answer of GET without its body, its `content-length` included (RFC 9110, 9.3.2).

Inside, the request is a GET, so a route needs no second method. An answer that comes in several pieces is ended after
its first: nobody waits for the rest of a report or of a live feed.
"""

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _HeadSent(Exception):
    """The head is out, and that was all."""


class HeadMiddleware:
    """Answers HEAD as GET. Any other method passes by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application; the server, which still sees a HEAD, writes no body."""
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
            await self._app({**scope, "method": "GET"}, receive, send_head)
