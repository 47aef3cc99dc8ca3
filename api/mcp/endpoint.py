"""`POST /mcp`: the caller is authenticated and rated like that of every unmetered route, then the MCP server answers.

The protocol's package is imported in a thread with the first request: a server that nobody asks starts without it.
"""

import asyncio
from importlib import import_module

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from api.auth.access import caller_of, context_of
from api.http.body import ClientLeft, read_body
from api.mcp.tools import Caller
from api.runtime import Runtime

PATH = "/mcp"


class McpEndpoint:
    """The ASGI application of the route."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what `caller_of` and `read_body` raise, before the package's task group could wrap it."""
        request = Request(scope, receive)
        principal = await caller_of(request, self._runtime, None)
        try:
            body = await read_body(scope, receive, max_bytes=self._runtime.settings.request_body_max_bytes)
        except ClientLeft:
            return
        server = await asyncio.to_thread(import_module, "api.mcp.server")
        caller = Caller(context_of(request, self._runtime, principal), principal, self._runtime)
        await server.answer({**scope, server.CALLER: caller}, _again(body, receive), send)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body first, and then goes on."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message
