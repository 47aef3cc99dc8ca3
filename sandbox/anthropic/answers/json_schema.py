"""An example that fits a JSON schema: the smallest, and always the same."""

from typing import Any

Json = dict[str, Any]

_MAX_DEPTH = 12
_STRINGS = {
    "date": "2026-11-30",
    "date-time": "2026-11-30T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: object, root: Json | None = None, depth: int = 0) -> Any:
    """Return a value that fits the schema; `$ref` is looked up in the root."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        return example(_referred(root, str(schema["$ref"])), root, depth + 1)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return example(schema[name][0], root, depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: Json, root: Json, depth: int) -> Any:
    """Return an example by the schema's type."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object" or "properties" in schema:
        wanted = schema.get("required", ())
        parts = schema.get("properties", {})
        return {name: example(parts.get(name), root, depth + 1) for name in wanted}
    if kind == "array":
        return [example(schema.get("items"), root, depth + 1)] * max(1, int(schema.get("minItems", 1)))
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "boolean":
        return True
    if kind == "string":
        text = _STRINGS.get(str(schema.get("format")), "example")
        return text.ljust(int(schema.get("minLength") or 0), "e")[: int(schema.get("maxLength") or 1_000)]
    return None


def _number(schema: Json) -> int:
    """Return the least integer that the bounds allow, or 1."""
    if "exclusiveMinimum" in schema:
        return int(schema["exclusiveMinimum"]) + 1
    return int(schema["minimum"]) if "minimum" in schema else min(1, int(schema.get("maximum", 1)))


def _referred(root: Json, reference: str) -> object:
    found: object = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    return found
