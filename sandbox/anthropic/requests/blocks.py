"""Validation of the content blocks of a prompt: which type may stand where, and what each must have.

Fields that are not named here are accepted: the gateway has to pass them on, and a beta may add any.
"""

from typing import Any

from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.requests.head import OLD_VERSION, Head
from sandbox.anthropic.requests.media import check_image, check_pdf

Json = dict[str, Any]

_SERVER_RESULTS = tuple(
    f"{name}_tool_result"
    for name in (
        *("web_search", "web_fetch", "code_execution", "bash_code_execution", "text_editor_code_execution"),
        *("tool_search", "advisor"),
    )
)
_REQUIRED: dict[str, tuple[tuple[str, type | tuple[type, ...]], ...]] = {
    "text": (("text", str),),
    "image": (("source", dict),),
    "document": (("source", dict),),
    "search_result": (("source", str), ("title", str), ("content", list)),
    "thinking": (("thinking", str), ("signature", str)),
    "redacted_thinking": (("data", str),),
    "tool_use": (("id", str), ("name", str), ("input", dict)),
    "tool_result": (("tool_use_id", str),),
    "server_tool_use": (("id", str), ("name", str), ("input", dict)),
    "mcp_tool_use": (("id", str), ("name", str), ("server_name", str), ("input", dict)),
    "mcp_tool_result": (("tool_use_id", str),),
    "mcp_tool_listing": (),
    "container_upload": (("file_id", str),),
    "compaction": (),
    "fallback": (("from", dict), ("to", dict)),
    "connector_text": (),
    "tool_addition": (),
    "tool_removal": (),
} | dict.fromkeys(_SERVER_RESULTS, (("tool_use_id", str), ("content", (dict, list))))
_ASSISTANT_ONLY = frozenset({"thinking", "redacted_thinking", "tool_use", "server_tool_use", "mcp_tool_use"})
_USER_ONLY = frozenset({"image", "search_result", "tool_result"})
_SYSTEM_TYPES = frozenset({"text", "tool_addition", "tool_removal"})
_RESULT_TYPES = frozenset({"text", "image", "document", "search_result", "tool_reference"})
_IMAGE_SOURCES = ("base64", "url", "file")
_DOCUMENT_SOURCES = ("base64", "text", "content", "url", "file")


def check_block(block: object, path: str, role: str, head: Head, *, images: int) -> None:
    """Refuse a block that is not well formed or not allowed in this role."""
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(block, dict) or not isinstance(kind, str) or kind not in _REQUIRED:
        known = ", ".join(f"'{name}'" for name in _REQUIRED)
        raise ApiError(
            400, f"{path}: Input tag {kind!r} found using 'type' does not match any of the expected tags: {known}"
        )
    for name, wanted in _REQUIRED[kind]:
        _require(block, name, wanted, f"{path}.{kind}")
    _check_role(kind, path, role, head)
    if kind == "text":
        _check_text(block, path, role, head)
    elif kind == "image":
        _check_source(block["source"], f"{path}.image", _IMAGE_SOURCES)
        if block["source"]["type"] == "base64":
            check_image(block["source"], f"{path}.image", images=images)
    elif kind == "document":
        _check_document(block, path, head, images=images)
    elif kind == "tool_result":
        _check_result(block, path, head, images=images)
    elif kind == "search_result":
        for number, inner in enumerate(block["content"]):
            check_block(inner, f"{path}.search_result.content.{number}", "user", head, images=images)


def _require(block: Json, name: str, wanted: type | tuple[type, ...], path: str) -> None:
    if name not in block:
        raise ApiError(400, f"{path}.{name}: Field required")
    if not isinstance(block[name], wanted):
        raise ApiError(400, f"{path}.{name}: Input has the wrong type")


def _check_role(kind: str, path: str, role: str, head: Head) -> None:
    """Refuse a block in a message of the wrong role."""
    if role == "user" and kind in _ASSISTANT_ONLY:
        raise ApiError(400, f"{path}: `{kind}` blocks are only allowed in messages of the role assistant")
    if role == "assistant" and kind in _USER_ONLY:
        raise ApiError(400, f"{path}: `{kind}` blocks are only allowed in messages of the role user")
    if role == "assistant" and kind == "document" and head.version != OLD_VERSION:
        raise ApiError(400, f"{path}: `document` blocks are not allowed in assistant messages in this API version")
    if role == "system" and kind not in _SYSTEM_TYPES:
        raise ApiError(400, f"{path}: `{kind}` blocks are not allowed in messages of the role system")


def _check_text(block: Json, path: str, role: str, head: Head) -> None:
    if not block["text"]:
        raise ApiError(400, f"{path}: text content must be non-empty")
    if not block["text"].strip():
        raise ApiError(400, f"{path}: text content blocks must contain non-whitespace text")
    if role == "user" and block.get("citations") and head.version != OLD_VERSION:
        raise ApiError(400, f"{path}: citations are not allowed on user text blocks")


def _check_source(source: Json, path: str, known: tuple[str, ...]) -> None:
    kind = source.get("type")
    if kind not in known:
        expected = ", ".join(f"'{name}'" for name in known)
        raise ApiError(
            400, f"{path}.source: Input tag {kind!r} found using 'type' does not match any of the expected: {expected}"
        )
    for wanted, field in (("url", "url"), ("file", "file_id"), ("text", "data"), ("content", "content")):
        if kind == wanted:
            _require(source, field, (str, list) if field == "content" else str, f"{path}.source.{kind}")


def _check_document(block: Json, path: str, head: Head, *, images: int) -> None:
    source = block["source"]
    _check_source(source, f"{path}.document", _DOCUMENT_SOURCES)
    if source["type"] == "base64":
        check_pdf(source, f"{path}.document")
    elif source["type"] == "text" and source.get("media_type") != "text/plain":
        raise ApiError(400, f"{path}.document.source.text.media_type: Input should be 'text/plain'")
    elif source["type"] == "content" and isinstance(source["content"], list):
        for number, inner in enumerate(source["content"]):
            check_block(inner, f"{path}.document.source.content.{number}", "user", head, images=images)


def _check_result(block: Json, path: str, head: Head, *, images: int) -> None:
    """Check what a tool answered: a text, blocks, or nothing."""
    content = block.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise ApiError(400, f"{path}.tool_result.content: Input should be a string or a list of blocks")
    for number, inner in enumerate(content):
        at = f"{path}.tool_result.content.{number}"
        kind = inner.get("type") if isinstance(inner, dict) else None
        if kind not in _RESULT_TYPES:
            raise ApiError(400, f"{at}: Input tag {kind!r} found using 'type' does not match any of the expected tags")
        if kind == "text" and not inner.get("text"):
            continue  # a tool may say nothing
        if kind != "tool_reference":
            check_block(inner, at, "user", head, images=images)
