"""Response examples, generated from the schemas so that none is outdated. Pure.

A field's own example comes first, then the value listed here for its name, then one for its type. Request bodies, which
must be valid as a whole, have examples written by hand (`api.schemas.fields.example`).
"""

from collections.abc import Mapping
from typing import Any

from api.schemas.fields import EXAMPLE_ID as _ID

EXAMPLE_ID = str(_ID)
_DEPTH = 6
_BY_NAME: dict[str, Any] = {
    "slug": "acme",
    "tenant_slug": "acme",
    "name": "Acme Pvt Ltd",
    "external_id": "ada@acme.example",
    "key": "nk_live_…",
    "prefix": "nk_live_4fT9aQ",
    "key_prefix": "nk_live_4fT9aQ",
    "key_name": "web",
    "model": "claude-sonnet-4-6",
    "code": "team",
    "plan": "team",
    "version": 2,
    "plan_version": 2,
    "requests": 128,
    "input_tokens": 51_200,
    "output_tokens": 18_240,
    "cache_read_tokens": 4_096,
    "cost_nano_usd": 428_429_000,
    "rated_nano_paise": 4_784_000_000_000,
    "errors": 2,
    "number": "INV/2627/0000042",
    "total": "₹3,538.82",
    "period": "2026-11-05-7HbN",
    "currency": "INR",
    "reason": "agreed with the customer",
    "actor": f"key:{EXAMPLE_ID}",
    "action": "key.revoke",
    "target": f"key:{EXAMPLE_ID}",
    "request_id": EXAMPLE_ID,
    "upstream_request_id": "req_011CSHoEeqs5C35K2UUqR7Fy",
    "razorpay_id": "sub_TmA1c9RkVe7HbN",
    "razorpay_invoice_id": "inv_TmA4kQ8sLw2ZxR",
    "payment_id": "pay_TmA4kQ8sLw2ZxR",
    "pay_url": "https://rzp.io/rzp/AbCdEfG",
    "outcome": "completed",
    "source": "final",
    "state": "settled",
    "email": "accounts@acme.example",
    "gstin": "27AAPFU0939F1ZV",
    "url": "https://acme.example/hooks/naka",
    "timezone": "Asia/Kolkata",
    "limit": 200_000,
    "used": 69_440,
    "held": 0,
    "remaining": 130_560,
}
_BY_ENDING: dict[str, Any] = {
    "_paise": 299_900,
    "_at": "2026-11-23T05:30:00Z",
    "_tokens": 0,
    "_rate": 3_000,
    "_id": EXAMPLE_ID,
    "_ms": 1_795_498_200_000,
    "_s": 60,
}
_BY_FORMAT = {
    "uuid": EXAMPLE_ID,
    "date": "2026-11-23",
    "date-time": "2026-11-23T05:30:00Z",
    "uri": "https://acme.example",
}


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
    """Returns a value that fits the schema; `schemas` are the components that it may refer to."""
    schema = resolved(schema, schemas)
    given = schema.get("examples") or ([schema["example"]] if "example" in schema else [])
    if given or depth > _DEPTH:
        return given[0] if given else None
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if choices:
        return example_of(_first(choices, name), schemas, name, depth + 1)
    if "const" in schema or "enum" in schema:
        return _fitting(schema, name)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {field: example_of(inner, schemas, field, depth + 1) for field, inner in fields.items()}
        case "array":
            return [example_of(schema.get("items", {}), schemas, name.removesuffix("s"), depth + 1)]
        case kind:
            return _plain(kind, schema, name)


def resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the schema itself, or the one it refers to."""
    reference = schema.get("$ref")
    return schemas.get(str(reference).rpartition("/")[2], {}) if reference else schema


def _first(choices: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Returns the first choice that is not null; a cursor is null."""
    if name == "next":
        return {"type": "null"}
    return next((each for each in choices if each.get("type") != "null"), choices[0])


def _fitting(schema: Mapping[str, Any], name: str) -> Any:
    allowed = schema.get("enum") or [schema.get("const")]
    known = _BY_NAME.get(name)
    return known if known in allowed else allowed[0]


def _plain(kind: Any, schema: Mapping[str, Any], name: str) -> Any:
    ending = next((value for end, value in _BY_ENDING.items() if name.endswith(end)), None)
    values: dict[Any, tuple[type | tuple[type, ...], Any]] = {
        "string": (str, _BY_FORMAT.get(str(schema.get("format")), "text")),
        "integer": (int, int(schema.get("minimum", 1))),
        "number": (int, 1),
        "boolean": (bool, bool(schema.get("default", False))),
    }
    if kind not in values:
        return None
    fits, otherwise = values[kind]
    if schema.get("format") in _BY_FORMAT:
        return _BY_FORMAT[schema["format"]]
    return next((value for value in (_BY_NAME.get(name), ending) if isinstance(value, fits)), otherwise)
