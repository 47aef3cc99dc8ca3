"""The API's own description: what FastAPI knows, and `/chat`, which it does not.

A route's summary is the first sentence of its docstring, and every answer has an example.
"""

from typing import Any

from fastapi import FastAPI

from api.openapi.examples import example_of

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
    },
}
_PROBLEM_REF = {"schema": {"$ref": "#/components/schemas/Problem"}}
_CHAT_STATUSES = {
    "401": "No key, or one that is not good",
    "402": "The tenant's subscription does not allow it; `code` says why",
    "403": "The key may not chat, or not with this model",
    "413": "The body or the prompt is too large",
    "415": "The body is not JSON",
    "422": "The body does not have this form, or the model has no price",
    "429": "A limit does not allow it now, or too many requests failed; `Retry-After` says when to come back",
    "502": "The model's provider failed",
    "503": "Come back after `Retry-After`",
    "504": "The model's provider did not answer in time",
}
_STREAM = "data: A toll post stands at the gate.\n\nevent: done\ndata: \n\n"
_CHAT = {
    "tags": ["chat"],
    "operationId": "chat",
    "summary": "Ask Claude; the answer streams.",
    "description": (
        "Unnamed events whose data is a piece of text, then `event: done` with empty data; or `event: error` with a "
        "problem as JSON. A comment breaks each silence of 15 s."
    ),
    "security": [{"HTTPBearer": []}],
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
                    },
                },
                "example": {"message": "What is a toll post?"},
            }
        },
    },
    "responses": {
        "200": {
            "description": "The answer",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _STREAM}},
        },
        **{
            status: {"description": words, "content": {"application/problem+json": _PROBLEM_REF}}
            for status, words in _CHAT_STATUSES.items()
        },
    },
}
_EVERYWHERE = {
    "401": "No key, or one that is not good",
    "403": "The key lacks the scope",
    "422": "The request does not have this form",
    "503": "Come back after `Retry-After`",
}
_MORE = {"404": "No such thing, or not yours", "409": "It exists already", "413": "The body is too large"}


def describe(app: FastAPI) -> None:
    """Completes `app.openapi()`: `/chat`, and the one shape of every error."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
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
        if not path.startswith("/v1"):
            continue
        for operation in operations.values():
            _say(operation)
            _show(operation, components)
            for status, words in {**_EVERYWHERE, **_MORE}.items():
                operation["responses"][status] = {
                    "description": words,
                    "content": {"application/problem+json": _PROBLEM_REF},
                }
    for path in ("/healthz", "/readyz", "/metrics", "/webhooks/razorpay"):
        for operation in schema["paths"].get(path, {}).values():
            _say(operation)
            _show(operation, components)
    schema["paths"] = {"/chat": {"post": _CHAT}, **schema["paths"]}
    return schema


def _say(operation: dict[str, Any]) -> None:
    """The docstring's first sentence as the summary, the rest as the description."""
    first, _, rest = operation.get("description", "").partition("\n\n")
    if first:
        operation["summary"] = " ".join(first.split()).rstrip(".")
        operation["description"] = rest or first


def _show(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """An example for each good answer in JSON that has none."""
    for status, response in operation["responses"].items():
        content = response.get("content", {}).get("application/json")
        if str(status).startswith("2") and content is not None and not {"example", "examples"} & content.keys():
            content["example"] = example_of(content.get("schema", {}), schemas)
