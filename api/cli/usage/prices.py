"""`naka price`: what the provider charges, in nano-USD per token (a dollar per million tokens is 1,000)."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.command import Call, Group, run_service
from api.schemas.usage.prices import NewPrice
from api.services.usage import prices
from core.errors import Invalid
from metering.pricing.price import WEB_SEARCH_RATE, Band

app = Group()

_BAND = tuple(Band.__dataclass_fields__)
_FACTOR = "NAME:VALUE=FACTOR"
_FORM = "OVER:INPUT:OUTPUT:READ:WRITE_5M:WRITE_1H"


@app.answering("add")
def add(
    model: Annotated[str, typer.Argument(help="The model, as the provider names it.")],
    effective_from: Annotated[str, typer.Argument(help="Start of the price, as 2031-01-01T00:00:00Z.")],
    band: Annotated[
        list[str],
        typer.Option(
            metavar=_FORM, help=f"Rates for prompts of more than OVER tokens: {_FORM}, as 0:3000:15000:300:3750:6000."
        ),
    ],
    factor: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_FACTOR, help=f"Cost of a modifier, per mille of the rates: {_FACTOR}, as speed:fast=2000."
        ),
    ] = None,
    web_search_rate: Annotated[int, typer.Option(help="Nano-USD per web search.")] = WEB_SEARCH_RATE,
) -> Call:
    """Add an entry to the price list."""
    new = NewPrice.model_validate(
        {
            "model": model,
            "effective_from": effective_from,
            "bands": [_band(text) for text in band],
            "factors": dict(map(_factor, factor or [])),
            "web_search_rate": web_search_rate,
        }
    )
    return lambda context: prices.add_price(context, new)


@app.answering("list", "id", "model", "effective_from", "bands", "factors", "web_search_rate")
def list_all() -> Call:
    """List every entry."""
    return prices.list_prices


@app.command()
def withdraw(price_id: Annotated[UUID, typer.Argument(metavar="PRICE_ID", help="The entry's id.")]) -> None:
    """Withdraw an entry that is not in force yet."""
    run_service(lambda context: prices.withdraw_price(context, price_id))


def _band(text: str) -> dict[str, int]:
    numbers = text.split(":")
    if len(numbers) != len(_BAND) or not all(part.isascii() and part.isdigit() for part in numbers):
        raise Invalid(f"a band is {_FORM}, in nano-USD per token")
    return dict(zip(_BAND, (int(number[:20]) for number in numbers), strict=True))


def _factor(text: str) -> tuple[str, int]:
    modifier, _, factor = text.partition("=")
    if not (factor.isascii() and factor.isdigit()):
        raise Invalid(f"a factor is {_FACTOR}, per mille of the rates")
    return modifier, int(factor[:20])
