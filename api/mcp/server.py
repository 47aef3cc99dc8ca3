"""The MCP server over the tools: the messages of the protocol are those of the official package.

Stateless: each HTTP request is answered by itself, in JSON, and nothing is kept of it. So any process answers any
request, and a key that was revoked ends with its next one. An error of a tool is an answer with `isError`.
"""

from typing import Any

import mcp_types as types
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from api.http.problems import code_of
from api.mcp.tools import Caller, Tool, tools_of, unknown_values
from core.errors import Invalid, NakaError

CALLER = "naka.mcp_caller"
"""The scope key of the authenticated caller."""
_INSTRUCTIONS = (
    "Read-only access to the usage, limits and bills of one Naka account, with the permissions of its API key. "
    "Costs are in nano-USD (10^9 are a dollar), amounts in paise (100 are a rupee), days in the operator's time zone."
)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers one HTTP request; `scope[CALLER]` is its caller."""
    manager = StreamableHTTPSessionManager(_SERVER, json_response=True, stateless=True)
    async with manager.run():
        await manager.handle_request(scope, receive, send)


def _caller(context: ServerRequestContext[Any]) -> Caller:
    request: Any = context.request
    caller: Caller = request.scope[CALLER]
    return caller


async def _list(context: ServerRequestContext[Any], _: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    tools = tools_of(_caller(context).principal)
    return types.ListToolsResult(tools=[_shown(name, tool) for name, tool in tools.items()])


def _shown(name: str, tool: Tool) -> types.Tool:
    return types.Tool(
        name=name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.arguments.model_json_schema(),
        annotations=types.ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False),
    )


async def _call(context: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
    caller = _caller(context)
    tool = tools_of(caller.principal).get(params.name)
    if tool is None:
        raise MCPError(types.INVALID_PARAMS, "There is no such tool, or this key lacks its permission.")
    try:
        arguments = tool.arguments.model_validate(params.arguments or {})
        if wrong := unknown_values(arguments):
            raise Invalid(f"unknown: {', '.join(wrong)}")
        return _result(await tool.answer(caller, arguments))
    except ValidationError as error:
        places = {".".join(str(part) for part in item["loc"]) or "arguments" for item in error.errors()}
        return _failed("invalid_request", f"Not valid: {', '.join(sorted(places))}")
    except NakaError as error:
        return _failed(code_of(error), str(error))


def _result(found: BaseModel) -> types.CallToolResult:
    text = found.model_dump_json()
    return types.CallToolResult(
        content=[types.TextContent(text=text)], structured_content=found.model_dump(mode="json")
    )


def _failed(code: str, message: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=f"{code}: {message}")], is_error=True)


_SERVER: Server[Any] = Server(
    "naka", version="0.1.0", instructions=_INSTRUCTIONS, on_list_tools=_list, on_call_tool=_call
)
