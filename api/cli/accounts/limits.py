"""Limits as command line options: `--set tokens/day=200000`, repeated."""

from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import Invalid

if TYPE_CHECKING:
    from api.schemas.accounts.limits import Limits

_FORM = "METER/WINDOW=N, as tokens/day=200000; spend is in micro-USD"

LimitTexts = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="METER/WINDOW=N", help=f"A limit: {_FORM}. Replaces all limits in force."),
]
Concurrency = Annotated[int | None, typer.Option(help="Requests at a time. Replaces all limits in force.")]
Nothing = Annotated[bool, typer.Option("--none", help="Replace the limits by an empty set.")]


def read_limits(texts: list[str] | None, concurrency: int | None) -> "Limits":
    """Parses a set of limits. Raises Invalid, or pydantic's ValidationError."""
    from api.schemas.accounts.limits import Limits  # noqa: PLC0415 - imports metering's tables

    return Limits.model_validate({"limits": [_limit(text) for text in texts or ()], "concurrency": concurrency})


def parse_replacement(texts: list[str] | None, concurrency: int | None, *, nothing: bool) -> "Limits | None":
    """Parses the set that replaces the limits; None without any option. Raises as `read_limits`."""
    if nothing and (texts or concurrency is not None):
        raise Invalid("--none excludes --set and --concurrency")
    return read_limits(texts, concurrency) if nothing or texts or concurrency is not None else None


def _limit(text: str) -> dict[str, object]:
    what, equals, number = text.partition("=")
    meter, slash, window = what.partition("/")
    if not equals or not slash or not (number.isascii() and number.isdigit()) or len(number) > len(str(2**63)):
        raise Invalid(f"a limit is {_FORM}")
    return {"meter": meter, "window": window, "limit": int(number)}
