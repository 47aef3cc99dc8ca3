"""Anthropic's price list as of 2026-11-22 (platform.claude.com: pricing, model overview, release notes).

Rates are nano-USD per token: a dollar per million tokens is 1,000. Later prices are added with `naka price add`.
"""

from datetime import UTC, datetime
from uuid import UUID, uuid5

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NAMESPACE = UUID("6e616b61-0000-8000-8000-000000000002")
_ALWAYS = datetime(2024, 1, 1, tzinfo=UTC)
_SONNET_5_5_CHEAPER_READS = datetime(2026, 10, 7, tzinfo=UTC)

# model, effective from, bands of (over prompt tokens, input, output, cache read, 5 min write, 1 h write)
_HAIKU_5_5 = ((0, 100, 500, 10, 125, 200), (100_000, 500, 2_500, 50, 625, 1_000))
_SONNET = ((0, 3_000, 15_000, 300, 3_750, 6_000),)
_SONNET_5 = ((0, 2_000, 10_000, 200, 2_500, 4_000),)
_HAIKU_4_5 = ((0, 1_000, 5_000, 100, 1_250, 2_000),)
_OPUS = ((0, 5_000, 25_000, 500, 6_250, 10_000),)
_FABLE_5_2 = ((0, 8_000, 40_000, 200, 10_000, 16_000),)
_FABLE_5_1 = ((0, 10_000, 50_000, 250, 12_500, 20_000),)
_FABLE_5 = ((0, 10_000, 50_000, 1_000, 12_500, 20_000),)
_PRICES = (
    ("claude-sonnet-4-6", _ALWAYS, _SONNET),
    ("claude-sonnet-4-5", _ALWAYS, _SONNET),
    ("claude-sonnet-4-5-20250929", _ALWAYS, _SONNET),
    ("claude-sonnet-5", _ALWAYS, _SONNET_5),
    ("claude-sonnet-5-5", _ALWAYS, _SONNET_5),
    ("claude-sonnet-5-5", _SONNET_5_5_CHEAPER_READS, ((0, 2_000, 10_000, 100, 2_500, 4_000),)),
    ("claude-haiku-5-5", _ALWAYS, _HAIKU_5_5),
    ("claude-haiku-4-5", _ALWAYS, _HAIKU_4_5),
    ("claude-haiku-4-5-20251001", _ALWAYS, _HAIKU_4_5),
    ("claude-opus-5-5", _ALWAYS, ((0, 4_000, 20_000, 200, 5_000, 8_000),)),
    ("claude-opus-5", _ALWAYS, _OPUS),
    ("claude-opus-4-8", _ALWAYS, _OPUS),
    ("claude-opus-4-7", _ALWAYS, _OPUS),
    ("claude-opus-4-6", _ALWAYS, _OPUS),
    ("claude-opus-4-5", _ALWAYS, _OPUS),
    ("claude-opus-4-5-20251101", _ALWAYS, _OPUS),
    ("claude-fable-5-2", _ALWAYS, _FABLE_5_2),
    ("claude-mythos-5-2", _ALWAYS, _FABLE_5_2),
    ("claude-fable-5-1", _ALWAYS, _FABLE_5_1),
    ("claude-mythos-5-1", _ALWAYS, _FABLE_5_1),
    ("claude-fable-5", _ALWAYS, _FABLE_5),
    ("claude-mythos-5", _ALWAYS, _FABLE_5),
)
_BAND_FIELDS = (
    "over_prompt_tokens",
    "input_rate",
    "output_rate",
    "cache_read_rate",
    "cache_write_5m_rate",
    "cache_write_1h_rate",
)

_prices = sa.table("prices", *(sa.column(name) for name in ("id", "model", "effective_from")))
_bands = sa.table("price_bands", *(sa.column(name) for name in ("price_id", *_BAND_FIELDS)))


def upgrade() -> None:
    """Inserts the prices."""
    prices, bands = [], []
    for model, since, rates in _PRICES:
        price_id = uuid5(_NAMESPACE, f"{model} {since.isoformat()}")
        prices.append({"id": price_id, "model": model, "effective_from": since})
        bands += [{"price_id": price_id, **dict(zip(_BAND_FIELDS, band, strict=True))} for band in rates]
    op.bulk_insert(_prices, prices)
    op.bulk_insert(_bands, bands)


def downgrade() -> None:
    """Deletes all prices."""
    op.execute("DELETE FROM prices")
