"""Razorpay's refusals, with its messages where known."""

from collections.abc import Container, Mapping
from typing import Any

Json = dict[str, Any]

NO_ROUTE: Json = {"message": "no Route matched with those values"}
MIN_AMOUNT_PAISE = 100
_MAX_NOTES = 15
_MAX_NOTE = 256


class Refused(Exception):
    """A refused call: HTTP status and the `error` object."""

    def __init__(self, description: str, *, status: int = 400, field: str | None = None, **more: object) -> None:
        super().__init__(description)
        self.status = status
        self.error: Json = {"code": "BAD_REQUEST_ERROR", "description": description, **more}
        if field is not None:
            self.error["field"] = field


def unknown(kind: str) -> Refused:
    """An unknown id of the right length."""
    if kind in ("sub", "plan"):
        return Refused("The ID provided is invalid or could not be found.")
    return Refused(
        "The id provided does not exist",
        source="internal",
        step="payment_initiation",
        reason="input_validation_failed",
        metadata={},
    )


def not_found() -> Refused:
    """An unsupported method, or a disabled feature."""
    return Refused("The requested URL was not found on the server.", source="NA", step="NA", reason="NA")


def only(body: Mapping[str, Any], allowed: Container[str]) -> None:
    """Refuses unknown fields."""
    for name in body:
        if name not in allowed:
            raise Refused(f"{name} is/are not required and should not be sent")


def required(body: Mapping[str, Any], name: str) -> Any:
    """The value of a required field. Assumption: the message per field."""
    value = body.get(name)
    if value is None or value == "":
        raise Refused(f"The {name.replace('_', ' ')} field is required.", field=name)
    return value


def integer(body: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """An integer field, also as a string of digits."""
    value = body.get(name, default)
    if isinstance(value, str) and value.lstrip("-").isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        required(body, name)
        raise Refused(f"The {name.replace('_', ' ')} must be an integer.", field=name)
    return value


def amount(
    body: Mapping[str, Any], name: str = "amount", *, text: str = "The amount must be at least INR 1.00."
) -> int:
    """An amount in paise, at least one rupee."""
    paise = integer(body, name)
    if paise < MIN_AMOUNT_PAISE:
        raise Refused(text, field=name)
    return paise


def flag(body: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """A boolean, also as 0, 1, "0" or "1"."""
    return body.get(name, default) in (True, 1, "1", "true")


def notes(body: Mapping[str, Any]) -> dict[str, str]:
    """The notes: at most 15 pairs of 256 characters."""
    value = body.get("notes") or {}
    if not isinstance(value, dict) or len(value) > _MAX_NOTES:
        raise Refused("Number of fields in notes should be less than or equal to 15", field="notes")
    if any(len(str(text)) > _MAX_NOTE for text in value.values()):
        raise Refused("A note is longer than 256 characters", field="notes")
    return {str(key): str(text) for key, text in value.items()}
