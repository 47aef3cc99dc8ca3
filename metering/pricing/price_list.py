"""The price list in Postgres: read whole, cached in the process, changed only by adding entries.

An entry is never edited, so pricing a request again gives the same cost; a new price is a new entry with a later date.
Postgres unreachable: the cached list is used; without one, `Unavailable`.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import offset_ms, to_ms
from core.errors import Conflict, Invalid, NotFound, Unavailable
from core.ids import uuid7
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.resilience.shares import own_work
from core.tenancy.audit import PLATFORM, Actor, record
from metering.models import PriceBandRow, PriceRow
from metering.pricing.price import WEB_SEARCH_RATE, Band, Price, PriceBook, UnknownModel, require_modifier

_BAND_FIELDS = tuple(field.name for field in fields(Band))


class PriceList:
    """The price book of this process, at most `ttl_s` old. A failed read keeps the old one: prices change rarely."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._database = database
        self._ttl_s = ttl_s
        self._book: PriceBook | None = None
        self._read_at = 0.0
        self._first: TtlCache[None, PriceBook] = TtlCache(ttl_s=0)  # one read serves all that wait for the first

    async def book(self) -> PriceBook:
        """The current list. Raises Unavailable when it was never read."""
        if self._book is None:
            self._book = await self._first.load(None, self._read)
        elif time.monotonic() - self._read_at > self._ttl_s:
            self._read_at = time.monotonic()  # callers in the meantime get the old one
            with contextlib.suppress(Unavailable):
                self._book = await self._read()
        return self._book

    async def known(self) -> PriceBook:
        """The list as last read, without waiting for Postgres: to settle requests that were granted by it."""
        return self._book or await self.book()

    async def _read(self) -> PriceBook:
        with own_work():  # prices belong to no tenant, so they do not wait for the share of one
            async with self._database.session() as session:
                book = PriceBook(await read_prices(session))
        self._read_at = time.monotonic()
        return book

    def forget(self, tenant_id: UUID | None) -> None:
        """Expires the cache, if the change was for all tenants (None)."""
        if tenant_id is None:
            self._read_at = 0.0


async def read_prices(session: AsyncSession) -> list[Price]:
    """Every entry, oldest first."""
    query = (
        select(PriceRow, PriceBandRow)
        .join(PriceBandRow, PriceBandRow.price_id == PriceRow.id)
        .order_by(PriceRow.effective_from, PriceRow.model, PriceBandRow.over_prompt_tokens)
    )
    bands: dict[PriceRow, list[Band]] = {}
    for price, band in (await session.execute(query)).all():
        bands.setdefault(price, []).append(Band(*(getattr(band, field) for field in _BAND_FIELDS)))
    return [
        Price(row.id, row.model, to_ms(row.effective_from), tuple(found), row.factors, row.web_search_rate)
        for row, found in bands.items()
    ]


async def require_priced(session: AsyncSession, models: Iterable[str]) -> None:
    """Raises UnknownModel when one of `models` never had a price, as a key for it could not be used."""
    wanted = set(models)
    known = await session.scalars(select(PriceRow.model).where(PriceRow.model.in_(wanted)))
    missing = wanted - set(known)
    if missing:
        raise UnknownModel(min(missing))


async def add_price(
    session: AsyncSession,
    actor: Actor,
    *,
    model: str,
    effective_from: datetime,
    bands: list[Band],
    factors: Mapping[str, int] | None = None,
    web_search_rate: int = WEB_SEARCH_RATE,
) -> UUID:
    """Adds an entry.

    Raises Conflict when the model has one from that moment on, Invalid for bands out of order or a factor of what is no
    modifier. An entry may start in the past: requests granted before it was added keep the entry of their grant.
    """
    starts = [band.over_prompt_tokens for band in bands]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise Invalid("bands must start at 0 and rise")
    factors = dict(factors or {})
    for modifier in factors:
        require_modifier(modifier)
    price_id = uuid7()
    extras: dict[str, Any] = {"factors": factors, "web_search_rate": web_search_rate}
    made = await session.scalar(
        insert(PriceRow)
        .values(id=price_id, model=model, effective_from=effective_from, **extras)
        .on_conflict_do_nothing()
        .returning(PriceRow.id)
    )
    if made is None:
        raise Conflict("the model has a price from that moment on")
    rows = [{field: getattr(band, field) for field in _BAND_FIELDS} for band in bands]
    await session.execute(insert(PriceBandRow), [{"price_id": price_id, **row} for row in rows])
    after = {"model": model, "effective_from": effective_from.isoformat(), "bands": rows, **extras}
    record(session, actor, "price.add", tenant_id=PLATFORM, target=f"price:{price_id}", after=after)
    return price_id


async def withdraw_price(session: AsyncSession, actor: Actor, price_id: UUID) -> None:
    """Deletes an entry that is not in force yet. Raises NotFound, or Invalid when it is in force."""
    price = await session.get(PriceRow, price_id, with_for_update=True)
    if price is None:
        raise NotFound("no such price")
    now = await session.scalar(select(func.clock_timestamp()))
    if now is None or to_ms(price.effective_from) <= to_ms(now) + offset_ms():
        raise Invalid("a price that is in force stays on the list: add a newer one")
    before = {"model": price.model, "effective_from": price.effective_from.isoformat()}
    await session.delete(price)
    record(session, actor, "price.withdraw", tenant_id=PLATFORM, target=f"price:{price_id}", before=before)
