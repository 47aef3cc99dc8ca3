"""`naka_add_usage`: adds usage to the rollups and the meters, and locks their rows in one written order.

The statements of older processes stay valid: they write the same tables in the same order. The function runs with the
caller's privileges; `migrations.access` grants it.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

COUNTS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cost_nano_usd",
)
# Postgres's own sum of bigint computes a numeric, whose conversions cost several per cent of a settlement.
_SUM = "CREATE AGGREGATE naka_sum (bigint) (SFUNC = int8pl, STYPE = bigint)"
_MONTH = "date_trunc('month', day)::date"


def type_of(name: str, counts: tuple[str, ...]) -> str:
    """The statement that creates a type: an element of what the function adds. Later revisions add types with more."""
    columns = ", ".join(f"{count} bigint" for count in (*counts, "errors"))
    return f"""
CREATE TYPE {name} AS (
    tenant_id uuid, user_id uuid, day date, period_id text, key_id uuid, model text, {columns}
)
"""


def function_of(type_name: str, counts: tuple[str, ...]) -> str:
    """The statement that creates the function for elements of this type."""
    reported = (*counts, "errors")
    return f"""
CREATE FUNCTION naka_add_usage(
  added {type_name}[], in_shard smallint,
  tables text[] DEFAULT ARRAY['usage_meters', 'usage_by_day', 'usage_monthly', 'usage_daily']
) RETURNS void LANGUAGE plpgsql AS $$
-- Callers lock rows of usage_requests before, and of tenant_epochs after: with the order here, no two of them deadlock.
#variable_conflict use_column
BEGIN{_upsert("usage_meters", ("tenant_id", "period_id", "shard"), counts)}\
{_upsert("usage_by_day", ("tenant_id", "day", "period_id", "model", "shard"), reported)}\
{_upsert("usage_monthly", ("tenant_id", "user_id", "month", "period_id", "key_id", "model"), reported)}\
{_upsert("usage_daily", ("tenant_id", "user_id", "day", "period_id", "key_id", "model"), reported)}
END
$$
"""


def _upsert(table: str, keys: tuple[str, ...], counts: tuple[str, ...]) -> str:
    """Adds the elements of `added` to the table, one row per key, in the order of the primary key."""
    names, sums = ", ".join((*keys, *counts)), ", ".join(f"public.naka_sum({name})" for name in counts)
    groups = ", ".join({"month": _MONTH, "shard": "in_shard"}.get(key, key) for key in keys)
    by = ", ".join(str(place + 1) for place in range(len(keys)))
    moved = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in counts)
    return f"""
  IF '{table}' = ANY (tables) THEN
    INSERT INTO public.{table} AS t ({names})
    SELECT {groups}, {sums} FROM unnest(added) GROUP BY {by} ORDER BY {by}
        ON CONFLICT ({", ".join(keys)}) DO UPDATE SET {moved};
  END IF;"""  # noqa: S608 - column names of this file


def upgrade() -> None:
    """Creates the function, the type of its rows and its sum."""
    op.execute(type_of("naka_usage", COUNTS))
    op.execute(_SUM)
    op.execute(function_of("naka_usage", COUNTS))


def downgrade() -> None:
    """Drops them."""
    op.execute("DROP FUNCTION naka_add_usage(naka_usage[], smallint, text[])")
    op.execute("DROP AGGREGATE naka_sum (bigint)")
    op.execute("DROP TYPE naka_usage")
