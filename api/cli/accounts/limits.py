"""Limits as they are typed: `tokens/day=200000`, as many as wanted."""

from typing import Annotated

import typer

from api.routes.admin.limits import Limits
from core.errors import Invalid

_FORM = "METER/WINDOW=N, as tokens/day=200000; spend is in micro-USD"

LimitTexts = Annotated[
    list[str] | None, typer.Option("--set", metavar="METER/WINDOW=N", help=f"A limit: {_FORM}. All others go.")
]
Concurrency = Annotated[int | None, typer.Option(help="Requests at a time. All others go.")]
Nothing = Annotated[bool, typer.Option("--none", help="Replace the limits by no limits at all.")]


def read_limits(texts: list[str] | None, concurrency: int | None) -> Limits:
    """A set of limits. Raises Invalid, or pydantic's ValidationError."""
    return Limits.model_validate({"limits": [_limit(text) for text in texts or ()], "concurrency": concurrency})


def asked_limits(texts: list[str] | None, concurrency: int | None, *, nothing: bool) -> Limits | None:
    """The set to replace the old one with; None when nothing was asked but to see it. Raises as `read_limits`."""
    if nothing and (texts or concurrency is not None):
        raise Invalid("--none goes alone")
    return read_limits(texts, concurrency) if nothing or texts or concurrency is not None else None


def _limit(text: str) -> dict[str, object]:
    what, equals, number = text.partition("=")
    meter, slash, window = what.partition("/")
    if not equals or not slash or not (number.isascii() and number.isdigit()) or len(number) > len(str(2**63)):
        raise Invalid(f"a limit is {_FORM}")
    return {"meter": meter, "window": window, "limit": int(number)}
