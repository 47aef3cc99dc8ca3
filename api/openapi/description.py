"""The OpenAPI description: FastAPI's own, plus `/chat` and `/chat/ui`, which bypass FastAPI.

A route's summary is the first sentence of its docstring, and every response has an example.
"""

from threading import Lock
from typing import Any

from fastapi import FastAPI

from api.openapi.examples import example_of
from metering.tags.tags import KEY_PATTERN, MAX_TAGS, MAX_VALUE_CHARS

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": ["string", "null"]},
        "limit": {"type": "string", "description": "The limit that refused, as in the `RateLimit` headers"},
        "used": {"type": "integer", "description": "What the limit's window has used; not of spend"},
        "quota": {"type": "integer"},
        "unit": {"type": "string"},
    },
}
_PROBLEM_REF = {"schema": {"$ref": "#/components/schemas/Problem"}}
_CHAT_STATUSES = {
    "401": "No valid API key",
    "402": "The tenant's subscription does not allow it; `code` says why",
    "403": "The key may not use chat, this model or this origin, or act for this user",
    "409": "The answer to this `Idempotency-Key` is not stored, or can't be continued",
    "413": "The body or the prompt is too large",
    "415": "The body is not JSON",
    "422": "The body does not match the schema, or the model has no price",
    "429": "A limit was reached, too many requests failed, or too many users are new; retry after `Retry-After`",
    "502": "Claude failed",
    "503": "Busy or unavailable; retry after `Retry-After`",
    "504": "Claude did not answer in time",
}


def _problems(statuses: dict[str, str]) -> dict[str, Any]:
    """The responses of these statuses, each with its description."""
    return {
        status: {"description": words, "content": {"application/problem+json": _PROBLEM_REF}}
        for status, words in statuses.items()
    }


_ANSWER = {
    "text": "A token is a few characters of text.",
    "request_id": "019a0b6e-4b7c-7c3e-9d1f-2a5b8c4d6e7f",
    "model": "claude-sonnet-4-6",
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 21,
        "output_tokens": 9,
        "cache_read_tokens": 0,
        "cache_write_5m_tokens": 0,
        "cache_write_1h_tokens": 0,
        "source": "final",
    },
}
_USAGE = {
    "name": "usage",
    "in": "query",
    "description": "1: the end of the answer tells its usage",
    "schema": {"type": "string", "enum": ["0", "1"]},
}
_STREAM = "data: A token is a few characters of text.\n\nevent: done\ndata: \n\n"
_CHAT = {
    "tags": ["chat"],
    "operationId": "chat",
    "summary": "Ask Claude; the answer is streamed.",
    "description": (
        "`messages` are earlier turns: roles alternate, the first is `user`, and `message` follows an `assistant`. "
        "The answer is unnamed events whose data is a piece of text, then `event: done` with empty data; or "
        "`event: error` with a problem as JSON. A comment is sent after every 15 s without text. "
        "`Accept: text/plain` gets the text alone, `Accept: application/json` one object with the usage; a WebSocket "
        "on this path takes the same body. Where the operator keeps answers, requests with one `Idempotency-Key` get "
        "one answer, billed once, and `Last-Event-ID` continues it."
    ),
    "security": [{"HTTPBearer": []}],
    "parameters": [
        _USAGE,
        {
            "name": "Naka-Tags",
            "in": "header",
            "description": "Tags of the request, beside those of the body, separated by commas",
            "schema": {"type": "string", "pattern": f"^{KEY_PATTERN[1:-1]}=[a-zA-Z0-9_.-]{{1,100}}$"},
            "example": "feature=search",
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["message"],
                    "properties": {
                        "message": {"type": "string", "minLength": 1, "pattern": r"\S"},
                        "system": {"type": ["string", "null"]},
                        "model": {"type": ["string", "null"], "minLength": 1, "maxLength": 100},
                        "user": {
                            "type": ["string", "null"],
                            "description": "The end user that a key with `chat:as-user` acts for; or `Naka-User`",
                        },
                        "messages": {
                            "type": ["array", "null"],
                            "maxItems": 10_000,
                            "items": {
                                "type": "object",
                                "required": ["role", "text"],
                                "properties": {
                                    "role": {"type": "string", "enum": ["user", "assistant"]},
                                    "text": {"type": "string", "minLength": 1, "pattern": r"\S"},
                                },
                            },
                        },
                        "tags": {
                            "type": ["object", "null"],
                            "description": "Keys and values to find and add up the request by",
                            "maxProperties": MAX_TAGS,
                            "propertyNames": {"pattern": KEY_PATTERN},
                            "additionalProperties": {
                                "type": "string",
                                "minLength": 1,
                                "maxLength": MAX_VALUE_CHARS,
                                "pattern": r"^[!-~]+$",
                            },
                            "examples": [{"feature": "search", "conversation": "c-42"}],
                        },
                    },
                },
                "example": {"message": "What is a token?"},
            }
        },
    },
    "responses": {
        "200": {
            "description": "The answer",
            "content": {
                "text/event-stream": {"schema": {"type": "string"}, "example": _STREAM},
                "text/plain": {"schema": {"type": "string"}, "example": _ANSWER["text"]},
                "application/json": {"schema": {"type": "object"}, "example": _ANSWER},
            },
        },
        **_problems(_CHAT_STATUSES),
    },
}
_UI_PART = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"type": "string"}, "text": {"type": "string"}},
}
_UI_MESSAGE = {
    "type": "object",
    "required": ["role", "parts"],
    "properties": {
        "role": {"type": "string", "enum": ["system", "user", "assistant"]},
        "parts": {"type": "array", "items": _UI_PART},
    },
}
_UI_STREAM = """data: {"type":"start","messageId":"019a0b6e-4b7c-7c3e-9d1f-2a5b8c4d6e7f"}

data: {"type":"start-step"}

data: {"type":"text-start","id":"text"}

data: {"type":"text-delta","id":"text","delta":"A token is a few characters of text."}

data: {"type":"text-end","id":"text"}

data: {"type":"finish-step"}

data: {"type":"finish","finishReason":"stop"}

data: [DONE]

"""
_CHAT_UI = {
    "tags": ["chat"],
    "operationId": "chat_ui",
    "summary": "Ask Claude from `useChat`; the answer is a UI message stream of the Vercel AI SDK.",
    "description": (
        "The body is what `DefaultChatTransport` sends. The last message is the user's; files and tools are refused. "
        "An `error` part, and the body of a refusal, is a problem as JSON."
    ),
    "security": [{"HTTPBearer": []}],
    "parameters": [_USAGE],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["messages"],
                    "properties": {
                        "messages": {"type": "array", "minItems": 1, "maxItems": 10_000, "items": _UI_MESSAGE},
                        "system": {"type": ["string", "null"]},
                        "model": {"type": ["string", "null"], "minLength": 1, "maxLength": 100},
                    },
                },
                "example": {
                    "messages": [{"role": "user", "parts": [{"type": "text", "text": "What is a token?"}]}],
                },
            }
        },
    },
    "responses": {
        "200": {
            "description": "The answer",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _UI_STREAM}},
        },
        **_problems(_CHAT_STATUSES),
    },
}
_STATUSES = {
    "401": "No valid API key",
    "403": "The key lacks the scope",
    "422": "The request does not match the schema",
    "503": "Busy or unavailable; retry after `Retry-After`",
    "404": "Not found, or not accessible with this key",
    "409": "It already exists",
    "413": "The body is too large",
}


def describe(app: FastAPI) -> None:
    """Adds the routes of `/chat` and the problem schema to `app.openapi()`, which any thread may call.

    The first call takes a second of CPU: no request makes it on the event loop.
    """
    generate, making = app.openapi, Lock()

    def openapi() -> dict[str, Any]:
        with making:
            if app.openapi_schema is None:
                app.openapi_schema = _complete(generate())
            return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components["Problem"] = PROBLEM
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _set_summary(operation)
            _add_examples(operation, components)
            if path.startswith("/v1"):
                operation["responses"] |= _problems(_STATUSES)
    schema["paths"] = {"/chat": {"post": _CHAT}, "/chat/ui": {"post": _CHAT_UI}, **schema["paths"]}
    return schema


def _set_summary(operation: dict[str, Any]) -> None:
    """Makes the docstring's first sentence the summary and the rest the description."""
    first, _, rest = operation.get("description", "").partition("\n\n")
    if first:
        operation["summary"] = " ".join(first.split()).rstrip(".")
        operation["description"] = rest or first


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Adds an example to each successful JSON response without one."""
    for status, response in operation["responses"].items():
        content = response.get("content", {}).get("application/json")
        if str(status).startswith("2") and content is not None and not {"example", "examples"} & content.keys():
            content["example"] = example_of(content.get("schema", {}), schemas)
