"""`naka price`: what the provider charges, in nano-USD per token (a dollar per million tokens is 1,000)."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.command import AsJson, CommandContext, run_command, show, show_all
from api.routes.admin.prices import NewPrice, PriceItem, enter_price
from core.errors import Invalid
from metering.pricing.price import Band
from metering.pricing.price_list import read_prices, withdraw_price

app = typer.Typer(no_args_is_help=True, help="Prices: what the provider charges.")

_BAND = tuple(Band.__dataclass_fields__)
_FORM = "OVER:INPUT:OUTPUT:READ:WRITE_5M:WRITE_1H"


@app.command()
def add(
    model: Annotated[str, typer.Argument(help="The model, as the provider names it.")],
    effective_from: Annotated[str, typer.Argument(help="From when on, as 2031-01-01T00:00:00Z.")],
    band: Annotated[
        list[str],
        typer.Option(
            metavar=_FORM, help=f"Rates for prompts of more than OVER tokens: {_FORM}, as 0:3000:15000:300:3750:6000."
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Add an entry to the price list."""
    new = NewPrice.model_validate(
        {"model": model, "effective_from": effective_from, "bands": [_band(text) for text in band]}
    )

    async def work(context: CommandContext) -> PriceItem:
        context.changed.append(None)
        return await enter_price(context.session, context.actor, new)

    show(run_command(work), as_json=as_json)


@app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List every entry."""

    async def work(context: CommandContext) -> list[PriceItem]:
        prices = await read_prices(context.session)
        return [PriceItem.of(price) for price in sorted(prices, key=lambda price: price.model)]

    show_all(run_command(work), ["id", "model", "effective_from", "bands"], as_json=as_json)


@app.command()
def withdraw(price_id: Annotated[UUID, typer.Argument(metavar="PRICE_ID", help="The entry's id.")]) -> None:
    """Take back an entry that is not in force yet."""

    async def work(context: CommandContext) -> None:
        await withdraw_price(context.session, context.actor, price_id)
        context.changed.append(None)

    run_command(work)


def _band(text: str) -> dict[str, int]:
    numbers = text.split(":")
    if len(numbers) != len(_BAND) or not all(part.isascii() and part.isdigit() for part in numbers):
        raise Invalid(f"a band is {_FORM}, in nano-USD per token")
    return dict(zip(_BAND, (int(number[:20]) for number in numbers), strict=True))
