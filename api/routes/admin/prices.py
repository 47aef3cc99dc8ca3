"""The price list: what the provider charges, in nano-USD per token. The operator's alone.

Entries are added, never edited, so that a request priced twice is priced alike.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import PlatformAdmin, RuntimeDep, actor_of
from api.routes.parameters import PageSize
from api.schemas.fields import EXAMPLE_ID, Body, ModelName, PromptSize, Rate, example
from api.schemas.moments import Moment
from api.schemas.pages import DEFAULT_SIZE, Page, page
from core.clock import to_datetime
from core.tenancy.audit import Actor
from metering.pricing.price import Band, Price
from metering.pricing.price_list import add_price, read_prices, withdraw_price

router = APIRouter()
_MAX_BANDS = 10


class BandItem(Body):
    """Rates in nano-USD per token for prompts of more than `over_prompt_tokens`: a dollar per million is 1,000."""

    over_prompt_tokens: PromptSize
    input_rate: Rate
    output_rate: Rate
    cache_read_rate: Rate
    cache_write_5m_rate: Rate
    cache_write_1h_rate: Rate


class NewPrice(Body):
    """A model's price from a moment on. The bands start at 0 and rise."""

    model_config = example(
        model="claude-sonnet-4-6",
        effective_from="2031-01-01T00:00:00Z",
        bands=[
            {
                "over_prompt_tokens": 0,
                "input_rate": 3_000,
                "output_rate": 15_000,
                "cache_read_rate": 300,
                "cache_write_5m_rate": 3_750,
                "cache_write_1h_rate": 6_000,
            }
        ],
    )

    model: ModelName
    effective_from: Moment
    bands: list[BandItem] = Field(min_length=1, max_length=_MAX_BANDS)

    def as_bands(self) -> list[Band]:
        """As metering takes them."""
        return [Band(**band.model_dump()) for band in self.bands]


class PriceItem(BaseModel):
    """An entry of the list."""

    id: UUID
    model: str
    effective_from: datetime
    bands: list[BandItem]

    @classmethod
    def of(cls, price: Price) -> Self:
        """As it is answered."""
        return cls(
            id=price.id,
            model=price.model,
            effective_from=to_datetime(price.effective_from_ms),
            bands=[BandItem(**asdict(band)) for band in price.bands],
        )


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


async def enter_price(session: AsyncSession, actor: Actor, new: NewPrice) -> PriceItem:
    """Adds the entry. Raises Conflict when the model has one of that moment, Invalid when the bands make no list."""
    price_id = await add_price(session, actor, model=new.model, effective_from=new.effective_from, bands=new.as_bands())
    return PriceItem(id=price_id, model=new.model, effective_from=new.effective_from, bands=new.bands)


@router.get("/prices")
async def all_prices(
    _: PlatformAdmin, runtime: RuntimeDep, cursor: PriceCursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[PriceItem]:
    """Every entry, by model and date."""
    async with runtime.database.session() as session:
        rows = await read_prices(session)
    return page(_after(rows, cursor)[: size + 1], size, PriceItem.of, lambda price: "{}@{}".format(*_place(price)))


def _after(prices: Sequence[Price], cursor: str | None) -> list[Price]:
    ordered = sorted(prices, key=_place)
    if cursor is None:
        return ordered
    model, _, moment_ms = cursor.rpartition("@")
    return [price for price in ordered if _place(price) > (model, int(moment_ms))]


def _place(price: Price) -> tuple[str, int]:
    return price.model, price.effective_from_ms


@router.post("/prices", status_code=201)
async def new_price(body: NewPrice, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> PriceItem:
    """Add an entry. Requests granted before keep the price they were granted under."""
    async with runtime.database.session() as session:
        entry = await enter_price(session, actor_of(request, principal), body)
    await runtime.changes.publish(None)
    return entry


@router.delete("/prices/{price_id}", status_code=204)
async def withdrawal(price_id: PriceId, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> None:
    """Take back an entry that is not in force yet."""
    async with runtime.database.session() as session:
        await withdraw_price(session, actor_of(request, principal), price_id)
    await runtime.changes.publish(None)
