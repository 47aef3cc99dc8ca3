"""Shapes of the price list."""

from dataclasses import asdict
from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.fields import Body, Factor, ModelName, Modifier, PromptSize, Rate, SearchRate, example
from api.schemas.moments import Moment
from core.clock import to_datetime
from metering.pricing.price import WEB_SEARCH_RATE, Price

_MAX_BANDS = 10
_MAX_FACTORS = 20


class BandItem(Body):
    """Rates in nano-USD per token for prompts of more than `over_prompt_tokens`: a dollar per million is 1,000."""

    over_prompt_tokens: PromptSize
    input_rate: Rate
    output_rate: Rate
    cache_read_rate: Rate
    cache_write_5m_rate: Rate
    cache_write_1h_rate: Rate


class NewPrice(Body):
    """A model's price from a moment on. The bands start at 0 and rise.

    `factors`: per mille of the list price, by modifier; a request with several pays their product. A modifier without a
    factor is refused. `web_search_rate`: nano-USD per web search, which no factor multiplies.
    """

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
        factors={"inference_geo:us": 1_100, "service_tier:batch": 500},
        web_search_rate=WEB_SEARCH_RATE,
    )

    model: ModelName
    effective_from: Moment
    bands: list[BandItem] = Field(min_length=1, max_length=_MAX_BANDS)
    factors: dict[Modifier, Factor] = Field(default_factory=dict, max_length=_MAX_FACTORS)
    web_search_rate: SearchRate = WEB_SEARCH_RATE


class PriceItem(BaseModel):
    """An entry of the price list."""

    id: UUID
    model: str
    effective_from: datetime
    bands: list[BandItem]
    factors: dict[str, int]
    web_search_rate: int

    @classmethod
    def of(cls, price: Price) -> Self:
        """The shape of an entry."""
        return cls(
            id=price.id,
            model=price.model,
            effective_from=to_datetime(price.effective_from_ms),
            bands=[BandItem(**asdict(band)) for band in price.bands],
            factors=dict(price.factors),
            web_search_rate=price.web_search_rate,
        )
