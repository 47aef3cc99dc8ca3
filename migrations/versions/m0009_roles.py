"""The schema changes that the application makes, as functions that run as the schema's owner.

They create and detach months of `usage_requests`; the application's role can change nothing else of the schema. Both
take a month, never a name, and pin their `search_path`. Roles and privileges are not in revisions: `migrations.access`
is applied after each migration.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

_MAKE_MONTH = """
CREATE FUNCTION naka_make_month(month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  part text := to_char(month, '"usage_requests_"YYYY_MM');
  first_id uuid;
  next_id uuid;
BEGIN
  IF month IS NULL OR extract(day FROM month) <> 1 OR month < '2000-01-01' OR month >= '2100-01-01' THEN
    RAISE invalid_parameter_value USING MESSAGE = 'not the first day of a month';
  END IF;
  IF to_regclass(format('public.%I', part)) IS NOT NULL THEN
    RETURN;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('naka_partitions'));
  -- The least UUIDv7 of a moment: its milliseconds, then zeros (core.ids.uuid7_floor).
  first_id := (lpad(to_hex(extract(epoch FROM month::timestamp)::bigint * 1000), 12, '0') || repeat('0', 20))::uuid;
  next_id := (lpad(to_hex(extract(epoch FROM month + interval '1 month')::bigint * 1000), 12, '0')
              || repeat('0', 20))::uuid;
  EXECUTE format('CREATE TABLE IF NOT EXISTS public.%I PARTITION OF public.usage_requests FOR VALUES FROM (%L) TO (%L)',
                 part, first_id, next_id);
END
$$
"""

_SEVEN = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cost_nano_usd",
)
_DETACH_MONTH = """
CREATE OR REPLACE FUNCTION naka_detach_month(month date, at_ms bigint, is_dropped boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  part text := to_char(month, '"usage_requests_"YYYY_MM');
  moves text;
  is_needed boolean;
BEGIN
  IF month IS NULL OR NOT isfinite(month) OR extract(day FROM month) <> 1 OR at_ms IS NULL OR is_dropped IS NULL THEN
    RAISE invalid_parameter_value USING MESSAGE = 'not the first day of a month';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('naka_partitions'));
  IF to_regclass(format('public.%I', part)) IS NULL THEN
    RETURN;  -- another worker was quicker
  END IF;
  moves := format('SELECT EXISTS (SELECT FROM public.%1$I WHERE state = ''open'')'
                  ' OR EXISTS (SELECT FROM public.%1$I WHERE hold_until > clock_timestamp())', part);
  EXECUTE moves INTO is_needed;
  IF is_needed THEN
    RAISE object_in_use USING MESSAGE = 'requests in it are open or held';
  END IF;
  -- A period that began in it is counted from its rows, when limits are rebuilt.
  IF EXISTS (SELECT FROM entitlements e, jsonb_array_elements(e.schedule -> 'periods') AS p
              WHERE (p ->> 'starts_ms')::bigint < extract(epoch FROM month + interval '1 month')::bigint * 1000
                AND (p ->> 'ends_ms')::bigint > at_ms) THEN
    RAISE object_in_use USING MESSAGE = 'a period that began in it is still counted';
  END IF;
  EXECUTE format('INSERT INTO public.usage_checkpoints (tenant_id, month, day, period_id, {counts})'
                 ' SELECT tenant_id, %L::date, day, period_id, {sums}'
                 '   FROM public.%I WHERE state = ''settled'' GROUP BY tenant_id, day, period_id', month, part);
  -- The lock stops admission, so it is waited for briefly, and what moved meanwhile is looked at under it.
  PERFORM set_config('lock_timeout', '500ms', true);
  EXECUTE format('ALTER TABLE public.usage_requests DETACH PARTITION public.%I', part);
  EXECUTE moves INTO is_needed;
  IF is_needed THEN
    RAISE object_in_use USING MESSAGE = 'requests in it are open or held';
  END IF;
  IF is_dropped THEN
    EXECUTE format('DROP TABLE public.%I', part);
  ELSE
    EXECUTE format('ALTER TABLE public.%I RENAME TO %I', part, part || '_detached');
  END IF;
END
$$
"""


def detach_month(counts: tuple[str, ...] = _SEVEN) -> str:
    """The statement that creates the second function, or replaces it, for these counts of a checkpoint."""
    sums = ", ".join(f"sum({name})" for name in counts)
    return _DETACH_MONTH.replace("{counts}", ", ".join(counts)).replace("{sums}", sums)


def upgrade() -> None:
    """Creates both, and revokes Postgres's default grant to PUBLIC; `migrations.access` grants them."""
    for statement in (_MAKE_MONTH, detach_month()):
        op.execute(statement)
    op.execute("REVOKE EXECUTE ON FUNCTION naka_make_month(date) FROM PUBLIC")
    op.execute("REVOKE EXECUTE ON FUNCTION naka_detach_month(date, bigint, boolean) FROM PUBLIC")


def downgrade() -> None:
    """Drops both."""
    op.execute("DROP FUNCTION naka_detach_month(date, bigint, boolean)")
    op.execute("DROP FUNCTION naka_make_month(date)")
