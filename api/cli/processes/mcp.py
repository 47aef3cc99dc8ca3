"""`naka mcp`: an MCP server on stdio for agents of this machine. It passes each message on to a Naka server's `/mcp`.

The key and the address come from the environment (NAKA_KEY, NAKA_URL); rights, rate and tenant are checked there. So it
needs no database, and works from any machine. The server down: the agent gets an error for its call.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from api.cli.command import load_settings
from core.errors import NakaError
from core.logs import configure_logs
from core.settings import Settings, SettingsError

_TIMEOUT_S = 30


def mcp() -> None:
    """Serve the Model Context Protocol on stdin and stdout, with the key in NAKA_KEY."""
    configure_logs(level="warning", as_json=False)  # to standard error: the output is the protocol
    settings = load_settings()
    if not settings.naka_key.get_secret_value():
        raise SettingsError("NAKA_KEY is not set: an API key with usage:read or tenant:admin")
    asyncio.run(_serve(settings))


class NoServer(NakaError):
    """No Naka server answers there, or it refuses the key."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no server answers at {url}, or it refuses the key: check NAKA_URL and NAKA_KEY")


async def _serve(settings: Settings) -> None:
    import httpx2  # noqa: PLC0415 - only this command speaks the protocol
    from mcp import Client, MCPError  # noqa: PLC0415 - as above
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 - as above
    from mcp.server.stdio import stdio_server  # noqa: PLC0415 - as above

    headers = {"authorization": f"Bearer {settings.naka_key.get_secret_value()}"}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=_TIMEOUT_S))
        transport = streamable_http_client(f"{settings.naka_url.rstrip('/')}/mcp", http_client=http)
        try:
            client = await stack.enter_async_context(Client(transport))
            await client.list_tools()
        except (MCPError, httpx2.HTTPError, ExceptionGroup) as error:
            raise NoServer(settings.naka_url) from error
        server = _relaying(client)
        read, write = await stack.enter_async_context(stdio_server())
        await server.run(read, write, server.create_initialization_options())


def _relaying(client: Any) -> Any:
    """The server whose tools are those of the client's server."""
    import mcp_types as types  # noqa: PLC0415 - as above
    from mcp.server import Server  # noqa: PLC0415 - as above

    async def list_tools(_: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        found: types.ListToolsResult = await client.list_tools(cursor=params.cursor if params else None)
        return found

    async def call_tool(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        found: types.CallToolResult = await client.call_tool(params.name, params.arguments)
        return found

    return Server(
        "naka",
        version="0.1.0",
        instructions=client.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
