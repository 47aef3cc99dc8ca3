"""`/openapi.json`, and `/docs`, the API reference that is rendered from it. Public, without script."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from api.auth.access import Access
from api.http.parameters import ANYTHING, Reads
from api.openapi.examples import example_of, resolved
from api.pages.route import page_router
from api.pages.site import render

router = page_router()
_TAGS = {
    "chat": "Chat",
    "usage": "Own usage and limits",
    "billing": "Billing, for a tenant's admin",
    "admin": "Administration",
    "webhooks": "Webhooks",
    "health": "Health and metrics",
}
_METHODS = ("get", "post", "put", "delete")


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a field of a body."""

    name: str
    kind: str
    is_required: bool
    words: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One route, as it is shown."""

    anchor: str
    method: str
    path: str
    summary: str
    words: str
    scope: str
    parameters: list[Field]
    body: list[Field]
    curl: str
    status: str
    answer: str
    errors: list[tuple[str, str]]


@router.get("/openapi.json", dependencies=[Depends(Reads(ANYTHING))])
async def description(request: Request) -> Response:
    """The OpenAPI description."""
    return JSONResponse(await asyncio.to_thread(request.app.openapi))


@router.get("/docs")
async def reference(request: Request) -> Response:
    """Every route, by topic."""
    app: FastAPI = request.app
    described = await asyncio.to_thread(app.openapi)
    groups: dict[str, list[Operation]] = {name: [] for name in _TAGS.values()}
    scopes = dict(_scopes(app))
    for path, operations in described["paths"].items():
        for method in _METHODS:
            if method in operations:
                tag = _TAGS.get(operations[method].get("tags", ["health"])[0], "Health and metrics")
                groups[tag].append(_operation(method, path, operations[method], described, scopes))
    return render(request, "reference.html", groups=groups)


def _scopes(app: FastAPI) -> Iterator[tuple[tuple[str, str], str]]:
    """The scope that each route requires, by (method, path)."""
    for route in (one for one in app.routes if isinstance(one, APIRoute)):
        direct = route.dependant.dependencies
        for wanted in (each.call for dependency in direct for each in (dependency, *dependency.dependencies)):
            if isinstance(wanted, Access):
                yield from (((method.lower(), route.path), wanted.scope.value) for method in route.methods or ())


def _operation(
    method: str, path: str, given: dict[str, Any], described: dict[str, Any], scopes: dict[tuple[str, str], str]
) -> Operation:
    schemas = described["components"]["schemas"]
    body = given.get("requestBody", {}).get("content", {}).get("application/json", {})
    status, answer = next((each for each in given["responses"].items() if str(each[0]).startswith("2")), ("", {}))
    return Operation(
        anchor=re.sub(r"\W+", "-", f"{method}{path}").strip("-"),
        method=method.upper(),
        path=path,
        summary=given.get("summary", ""),
        words=given.get("description", ""),
        scope="chat" if path.startswith("/chat") else scopes.get((method, path), ""),
        parameters=[_field(each["name"], each, each["schema"], schemas) for each in given.get("parameters", [])],
        body=list(_fields(body.get("schema", {}), schemas)),
        curl=_curl(method, path, given, body.get("example") or example_of(body.get("schema", {}), schemas), schemas),
        status=str(status),
        answer=_answer(answer),
        errors=[(code, said["description"]) for code, said in given["responses"].items() if str(code) >= "4"],
    )


def _field(name: str, given: dict[str, Any], schema: dict[str, Any], schemas: dict[str, Any]) -> Field:
    return Field(name, _kind(schema, schemas), bool(given.get("required")), given.get("description", ""))


def _fields(schema: Mapping[str, Any], schemas: dict[str, Any]) -> Iterator[Field]:
    """The fields of a body."""
    schema = resolved(schema, schemas)
    for name, inner in schema.get("properties", {}).items():
        yield Field(name, _kind(inner, schemas), name in schema.get("required", []), inner.get("description", ""))


def _kind(schema: Mapping[str, Any], schemas: dict[str, Any]) -> str:
    """The type and its bounds in words."""
    schema = resolved(schema, schemas)
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_kind(each, schemas) for each in choices))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"]).replace("`", "")
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), schemas)}"
    bounds = [f"{word} {schema[name]}" for name, word in _BOUNDS.items() if name in schema]
    kind = schema.get("format") or schema.get("type", "any")
    return " ".join([" or ".join(kind) if isinstance(kind, list) else kind, *bounds])


_BOUNDS = {"minimum": "from", "maximum": "to", "minLength": "of at least", "maxLength": "of at most"}


def _curl(method: str, path: str, given: dict[str, Any], body: Any, schemas: dict[str, Any]) -> str:
    """The request as a shell command."""
    for parameter in given.get("parameters", []):
        if parameter["in"] == "path":
            value = parameter.get("example") or example_of(parameter["schema"], schemas, parameter["name"])
            path = path.replace(f"{{{parameter['name']}}}", str(value))
    words = [f"curl $NAKA{path}"]
    if method not in {"get", "post"} or (method == "post" and not body):
        words.insert(0, words.pop(0).replace("curl", f"curl -X {method.upper()}"))
    if path.startswith(("/v1", "/chat")):
        words.append('-H "authorization: Bearer $KEY"')
    if body:
        words += ["-H 'content-type: application/json'", f"-d '{json.dumps(body, ensure_ascii=False, default=str)}'"]
    return " \\\n  ".join(words)


def _answer(given: dict[str, Any]) -> str:
    """The answer's example, or else its type."""
    kind: str
    for kind, content in given.get("content", {}).items():
        example = content.get("example")
        if example is not None:
            return (
                example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False, default=str)
            )
        return kind
    return ""
