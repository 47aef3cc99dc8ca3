"""The price list: what the provider charges, in nano-USD per token. Only a platform admin sees and changes it.

Entries are added, never edited, so that a request priced twice gets the same price.
"""

from typing import Any
from uuid import UUID

from api.schemas.pages import Page, page
from api.schemas.usage.prices import NewPrice, PriceItem
from api.services.context import ServiceContext, publish_after_commit
from core.tenancy.principal import Scope
from metering.pricing import price_list
from metering.pricing.price import Band, Price


async def add_price(context: ServiceContext, new: NewPrice) -> PriceItem:
    """Adds an entry. Raises Conflict when the model has one of that moment, Invalid for its bands or factors."""
    context.require(Scope.PLATFORM_ADMIN)
    bands = [Band(**band.model_dump()) for band in new.bands]
    given: dict[str, Any] = new.model_dump(exclude={"bands"})
    async with context.transaction() as session:
        price_id = await price_list.add_price(session, context.actor, bands=bands, **given)
        publish_after_commit(session, None)
    return PriceItem(id=price_id, bands=new.bands, **given)


async def withdraw_price(context: ServiceContext, price_id: UUID) -> None:
    """Withdraws an entry that is not in force yet. Raises NotFound, Conflict."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        await price_list.withdraw_price(session, context.actor, price_id)
        publish_after_commit(session, None)


async def list_prices(context: ServiceContext, *, after: str | None = None, size: int | None = None) -> Page[PriceItem]:
    """Entries by model and date, all without a `size`. The cursor `after` is `model@milliseconds`."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        rows = sorted(await price_list.read_prices(session), key=_place)
    if after is not None:
        model, _, moment_ms = after.rpartition("@")
        rows = [price for price in rows if _place(price) > (model, int(moment_ms))]
    return page(rows, size, PriceItem.of, lambda price: "{}@{}".format(*_place(price)))


def _place(price: Price) -> tuple[str, int]:
    return price.model, price.effective_from_ms
