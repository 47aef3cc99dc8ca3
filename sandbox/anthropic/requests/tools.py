"""Validation of tools and of the choice among them, and what kind each tool is."""

import re
from collections.abc import Sequence
from typing import Any

from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.models import NO_FORCED_TOOLS, Model
from sandbox.anthropic.requests.head import Head

Json = dict[str, Any]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_CLIENT_TOOLS = ("bash_", "text_editor_", "memory_", "computer_", "browser_toolset_")
_SERVER_TOOLS = ("web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "advisor_")
_BETA_TOOLS = {
    "advisor_": ("advisor-tool-",),
    "mcp_toolset": ("mcp-client-",),
    "computer_20": ("computer-use-",),
}
_DEFAULT_NAMES = {
    "bash_": "bash",
    "text_editor_": "str_replace_based_edit_tool",
    "memory_": "memory",
    "computer_": "computer",
    "browser_toolset_": "browser",
    "web_search_": "web_search",
    "web_fetch_": "web_fetch",
    "code_execution_": "code_execution",
    "advisor_": "advisor",
}


def kind_of(tool: Json) -> str:
    """Return the type of a tool; one that the client defines is `custom`."""
    return tool.get("type") or "custom"


def is_server_tool(tool: Json) -> bool:
    """Whether the provider runs this tool."""
    return kind_of(tool).startswith((*_SERVER_TOOLS, "mcp_toolset"))


def is_paired_later(block: Json) -> bool:
    """Whether a tool use was made by code that runs at the provider: its result may come in a later turn."""
    caller = block.get("caller")
    return isinstance(caller, dict) and caller.get("type") not in (None, "direct")


def name_of(tool: Json) -> str:
    """Return the name that a tool is called by."""
    name = tool.get("name")
    if isinstance(name, str):
        return name
    return next((known for prefix, known in _DEFAULT_NAMES.items() if kind_of(tool).startswith(prefix)), "")


def check_tools(tools: Sequence[object], choice: Json | None, model: Model, head: Head) -> None:
    """Refuse tools and a choice that do not fit; raises `ApiError` (400)."""
    names: list[str] = []
    for number, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise ApiError(400, f"tools.{number}: Input should be an object")
        _check_tool(tool, f"tools.{number}", head)
        names.append(name_of(tool))
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise ApiError(400, "tools: Tool names must be unique.")
    if choice is not None:
        _check_choice(choice, names, model)


def _check_tool(tool: Json, path: str, head: Head) -> None:
    kind = kind_of(tool)
    if kind == "mcp_toolset":
        if not isinstance(tool.get("mcp_server_name"), str):
            raise ApiError(400, f"{path}.mcp_toolset.mcp_server_name: Field required")
    elif kind == "custom":
        _check_custom(tool, path)
    elif not kind.startswith((*_CLIENT_TOOLS, *_SERVER_TOOLS)):
        raise ApiError(400, f"{path}: Input tag {kind!r} found using 'type' does not match any of the expected tags")
    for prefix, betas in _BETA_TOOLS.items():
        if kind.startswith(prefix) and not head.has_beta(*betas):
            raise ApiError(400, f"{path}: the tool {kind!r} needs the beta header {betas[0]}...")


def _check_custom(tool: Json, path: str) -> None:
    name, schema = tool.get("name"), tool.get("input_schema")
    if not isinstance(name, str):
        raise ApiError(400, f"{path}.custom.name: Field required")
    if not _NAME.fullmatch(name):
        raise ApiError(400, f"{path}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    if not isinstance(schema, dict):
        raise ApiError(400, f"{path}.custom.input_schema: Field required")
    if schema.get("type") != "object":
        raise ApiError(400, f"{path}.custom.input_schema.type: Input should be 'object'")


def _check_choice(choice: Json, names: Sequence[str], model: Model) -> None:
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise ApiError(
            400, "tool_choice: Input tag does not match any of the expected tags: 'auto', 'any', 'tool', 'none'"
        )
    if not names:
        raise ApiError(400, "tool_choice: may only be specified while providing tools.")
    if kind in ("any", "tool") and model.id in NO_FORCED_TOOLS:
        raise ApiError(400, f"tool_choice: {model.id} does not support forcing a tool; use auto")
    if kind == "tool" and choice.get("name") not in names:
        raise ApiError(400, f"tool_choice.name: Tool {choice.get('name')!r} not found in provided tools")
