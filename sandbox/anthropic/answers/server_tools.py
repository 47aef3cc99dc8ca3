"""Blocks of the tools that run at the provider: the call and its result from one short block of a script.

| short block | becomes |
| --- | --- |
| `{"type": "web_search", "query", "results": 2}` | server_tool_use, web_search_tool_result |
| `{"type": "web_search", "query", "error": "max_uses_exceeded"}` | the same with an error, which is free |
| `{"type": "web_fetch", "url", "text"}` | server_tool_use, web_fetch_tool_result |
| `{"type": "code_execution", "code", "stdout"}` | server_tool_use, code_execution_tool_result |
| `{"type": "bash_code_execution", "command", "stdout"}` | server_tool_use, bash_code_execution_tool_result |
| `{"type": "tool_search", "query", "tools": [...]}` | server_tool_use, tool_search_tool_result |
| `{"type": "mcp", "server", "name", "input", "text"}` | mcp_tool_use, mcp_tool_result |
| `{"type": "advisor", "model", "text"}` | server_tool_use, advisor_tool_result |
"""

from collections.abc import Callable, Sequence
from typing import Any

from sandbox.anthropic.tokens import filler

Json = dict[str, Any]

_RESULT_TOKENS = 300  # of the text of one search result or page
_WHEN = "2026-11-30T12:00:00Z"


def expand(short: Json, call_id: str) -> Sequence[Json]:
    """Return the blocks that a short block stands for; any other block is returned as it is."""
    make = _MAKERS.get(short.get("type", ""))
    return (short,) if make is None else make(short, call_id)


def citation(result: Json) -> Json | None:
    """Return a citation of the first result of a search, for the text that follows it."""
    found = result.get("content")
    if result.get("type") != "web_search_tool_result" or not isinstance(found, list) or not found:
        return None
    return {
        "type": "web_search_result_location",
        "url": found[0]["url"],
        "title": found[0]["title"],
        "cited_text": "A gateway counts every word that passes.",
        "encrypted_index": "c2ltdWxhdGVkLWluZGV4",
    }


def _call(call_id: str, name: str, arguments: Json) -> Json:
    return {"type": "server_tool_use", "id": call_id, "name": name, "input": arguments}


def _error(kind: str, call_id: str, code: str) -> Json:
    return {
        "type": f"{kind}_tool_result",
        "tool_use_id": call_id,
        "content": {"type": f"{kind}_tool_result_error", "error_code": code},
    }


def _web_search(short: Json, call_id: str) -> Sequence[Json]:
    call = _call(call_id, "web_search", {"query": short.get("query", "gateways")})
    if "error" in short:
        return call, _error("web_search", call_id, short["error"])
    found = [
        {
            "type": "web_search_result",
            "url": f"https://example.com/{number}",
            "title": f"Result {number}",
            "encrypted_content": filler(_RESULT_TOKENS),
            "page_age": "2 days ago",
        }
        for number in range(1, short.get("results", 2) + 1)
    ]
    return call, {"type": "web_search_tool_result", "tool_use_id": call_id, "content": found}


def _web_fetch(short: Json, call_id: str) -> Sequence[Json]:
    url = short.get("url", "https://example.com/page")
    call = _call(call_id, "web_fetch", {"url": url})
    if "error" in short:
        return call, _error("web_fetch", call_id, short["error"])
    page = {
        "type": "document",
        "source": {
            "type": "text",
            "media_type": "text/plain",
            "data": short.get("text") or filler(_RESULT_TOKENS),
        },
        "title": "A page",
        "citations": {"enabled": True},
    }
    content = {"type": "web_fetch_result", "url": url, "content": page, "retrieved_at": _WHEN}
    return call, {"type": "web_fetch_tool_result", "tool_use_id": call_id, "content": content}


def _executed(name: str, argument: str) -> Callable[[Json, str], Sequence[Json]]:
    """Make the maker for a tool that runs code."""

    def make(short: Json, call_id: str) -> Sequence[Json]:
        call = _call(call_id, name, {argument: short.get(argument, "print(6 * 7)")})
        if "error" in short:
            return call, _error(name, call_id, short["error"])
        content = {
            "type": f"{name}_result",
            "stdout": short.get("stdout", "42\n"),
            "stderr": short.get("stderr", ""),
            "return_code": short.get("return_code", 0),
            "content": [],
        }
        return call, {"type": f"{name}_tool_result", "tool_use_id": call_id, "content": content}

    return make


def _tool_search(short: Json, call_id: str) -> Sequence[Json]:
    call = _call(call_id, "tool_search_tool_bm25", {"query": short.get("query", "weather")})
    references = [{"type": "tool_reference", "tool_name": name} for name in short.get("tools", ())]
    content = {"type": "tool_search_tool_search_result", "tool_references": references}
    return call, {"type": "tool_search_tool_result", "tool_use_id": call_id, "content": content}


def _mcp(short: Json, call_id: str) -> Sequence[Json]:
    call = {
        "type": "mcp_tool_use",
        "id": call_id,
        "name": short.get("name", "look_up"),
        "server_name": short.get("server", "example"),
        "input": short.get("input", {}),
    }
    content = [{"type": "text", "text": short.get("text", "The server answered."), "citations": None}]
    failed = bool(short.get("is_error"))
    return call, {"type": "mcp_tool_result", "tool_use_id": call_id, "is_error": failed, "content": content}


def _advisor(short: Json, call_id: str) -> Sequence[Json]:
    result = {
        "type": "advisor_tool_result",
        "tool_use_id": call_id,
        "content": {"type": "advisor_result", "text": short.get("text", "Count twice."), "stop_reason": "end_turn"},
    }
    return _call(call_id, "advisor", {}), result | {"_model": short.get("model", "claude-opus-5-5")}


_MAKERS: dict[str, Callable[[Json, str], Sequence[Json]]] = {
    "web_search": _web_search,
    "web_fetch": _web_fetch,
    "code_execution": _executed("code_execution", "code"),
    "bash_code_execution": _executed("bash_code_execution", "command"),
    "tool_search": _tool_search,
    "mcp": _mcp,
    "advisor": _advisor,
}
SHORT_BLOCKS = frozenset(_MAKERS)
