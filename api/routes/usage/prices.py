"""The price list: what the provider charges, in nano-USD per token. For platform admins alone."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query

from api.auth.access import PlatformContext
from api.routes.parameters import PageSize
from api.routes.route import admin_router
from api.schemas.fields import EXAMPLE_ID
from api.schemas.pages import DEFAULT_SIZE, Page
from api.schemas.usage.prices import NewPrice, PriceItem
from api.services.usage import prices

router = admin_router()

PriceId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
PriceCursor = Annotated[
    str | None,
    Query(
        description="`next` of the page before",
        max_length=200,
        pattern=r"^[!-~]+@[0-9]{1,15}$",
        examples=["claude-sonnet-4-6@1704067200000"],
    ),
]


@router.get("/prices")
async def all_prices(
    context: PlatformContext, cursor: PriceCursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[PriceItem]:
    """Every entry, by model and date."""
    return await prices.list_prices(context, after=cursor, size=size)


@router.post("/prices", status_code=201)
async def new_price(body: NewPrice, context: PlatformContext) -> PriceItem:
    """Add an entry. Requests granted before keep the price they were granted under."""
    return await prices.add_price(context, body)


@router.delete("/prices/{price_id}", status_code=204)
async def withdrawal(price_id: PriceId, context: PlatformContext) -> None:
    """Withdraw an entry that is not in force yet."""
    await prices.withdraw_price(context, price_id)
