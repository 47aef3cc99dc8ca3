"""Two more counts (thinking tokens, web searches), what a price needs beside its bands, and entries of iterations.

Columns with a constant default are added without rewriting a table. The statements of older processes stay valid: they
name their columns, and call `naka_add_usage` with the type of migration 0011; here is an overload for a type that has
the new counts. Months that were detached get the columns too, so that they can be attached again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.versions.m0009_roles import detach_month
from migrations.versions.m0011_add_usage import COUNTS, function_of, type_of

revision = "0012"
down_revision = "0011"

_NEW = ("thinking_tokens", "web_searches")
NINE = (*COUNTS[:-1], *_NEW, COUNTS[-1])
_TYPE = "naka_usage_0012"
_COUNTED = (
    "usage_requests",
    "usage_entries",
    "usage_meters",
    "usage_by_day",
    "usage_monthly",
    "usage_daily",
    "usage_checkpoints",
)
"""The tables with the counts, in the order in which settlements lock them."""
_ADD = ", ".join(f"ADD COLUMN {name} bigint NOT NULL DEFAULT 0" for name in _NEW)
_DROP = ", ".join(f"DROP COLUMN {name}" for name in _NEW)
_ADD_HELD = "ADD COLUMN held_web_searches bigint, ADD COLUMN modifiers text"
_DROP_HELD = "DROP COLUMN held_web_searches, DROP COLUMN modifiers"

# Every request needs these tables: a lock that is waited for stops admission, so it is waited for briefly, many times.
LOCK = f"""
DO $$
BEGIN
  PERFORM set_config('lock_timeout', '100ms', true);
  FOR try IN 1..240 LOOP
    BEGIN
      LOCK TABLE {", ".join((*_COUNTED, "prices"))} IN ACCESS EXCLUSIVE MODE;
      RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      PERFORM pg_sleep(1);
    END;
  END LOOP;
  RAISE lock_not_available USING MESSAGE = 'the usage tables are in use by long transactions: migrate again later';
END
$$
"""
DETACHED_MONTHS = """
DO $$
DECLARE
  part regclass;
BEGIN
  FOR part IN SELECT oid::regclass FROM pg_class
               WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                 AND relname ~ '^usage_requests_[0-9]{4}_[0-9]{2}_detached$' LOOP
    EXECUTE format('ALTER TABLE %s CHANGE', part);
  END LOOP;
END
$$
"""
# The check is made under the lock, on a table that is small beside the requests.
_KINDS = """
ALTER TABLE usage_entries DROP CONSTRAINT usage_entries_kind_check,
      ADD CONSTRAINT usage_entries_kind_check CHECK (kind IN ({kinds}))
"""
_OLD_KINDS = "'revision', 'correction', 'credit', 'repair'"

_PRICES = """
ALTER TABLE prices ADD COLUMN factors jsonb NOT NULL DEFAULT '{}',
      ADD COLUMN web_search_rate bigint NOT NULL DEFAULT 10000000 CHECK (web_search_rate >= 0)
"""
# Anthropic's factors as of 2026-11-29, per mille of every token rate; they multiply. Fast mode: 2x. Inference in the
# US: 1.1x, for models since 4.6 (older ones refuse it). Batches: 0.5x, for all. A web search is 10 USD per 1,000.
_BATCH = {"service_tier:batch": 500}
_SINCE_4_6 = {"inference_geo:us": 1100, **_BATCH}
_FAST = {"speed:fast": 2000, **_SINCE_4_6}
_FACTORS = (
    (_SINCE_4_6, ("claude-sonnet-4-6", "claude-sonnet-5", "claude-sonnet-5-5", "claude-haiku-5-5")),
    (_SINCE_4_6, ("claude-opus-4-6", "claude-opus-4-7", "claude-fable-5", "claude-mythos-5")),
    (_SINCE_4_6, ("claude-fable-5-1", "claude-mythos-5-1", "claude-mythos-5-2")),
    (_FAST, ("claude-fable-5-2", "claude-opus-5-5", "claude-opus-5", "claude-opus-4-8")),
)


def upgrade() -> None:
    """Adds the columns under one lock, so that no statement sees some of them."""
    op.execute(LOCK)
    _change_counts(_ADD, _ADD_HELD)
    op.execute(_KINDS.format(kinds=f"{_OLD_KINDS}, 'iteration'"))
    op.execute(type_of(_TYPE, NINE))
    op.execute(function_of(_TYPE, NINE))
    op.execute(detach_month(NINE))
    op.execute(_PRICES)
    _set_factors(_BATCH)
    for factors, models in _FACTORS:
        _set_factors(factors, models)


def downgrade() -> None:
    """Drops everything again; fails if there are entries of iterations, whose usage older versions cannot show."""
    op.execute(LOCK)
    op.execute("ALTER TABLE prices DROP COLUMN factors, DROP COLUMN web_search_rate")
    op.execute(detach_month())
    op.execute(f"DROP FUNCTION naka_add_usage({_TYPE}[], smallint, text[])")
    op.execute(f"DROP TYPE {_TYPE}")
    op.execute(_KINDS.format(kinds=_OLD_KINDS))
    _change_counts(_DROP, _DROP_HELD)


def _change_counts(change: str, change_held: str) -> None:
    op.execute(DETACHED_MONTHS.replace("CHANGE", f"{change}, {change_held}"))
    for table in _COUNTED:
        op.execute(f"ALTER TABLE {table} {change}{f', {change_held}' if table == 'usage_requests' else ''}")


def _set_factors(factors: dict[str, int], models: tuple[str, ...] | None = None) -> None:
    """Sets the factors of every entry of these models (None: of all), also of entries that the operator added.

    No request had a modifier before this revision, so pricing an older one again gives the same cost.
    """
    prices = sa.table("prices", sa.column("model"), sa.column("factors", JSONB))
    change = sa.update(prices).values(factors=factors)
    op.execute(change if models is None else change.where(prices.c.model.in_(models)))
