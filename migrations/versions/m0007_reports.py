"""Reports: two coarser rollups beside the daily one, errors, and the sums of detached months."""

from alembic import op

revision = "0007"
down_revision = "0006"

_SUMMED = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cost_nano_usd",
)
_COUNTS = ",\n    ".join(f"{name} bigint NOT NULL DEFAULT 0" for name in _SUMMED)
_ERRORS = "errors bigint NOT NULL DEFAULT 0"
_NAMES = ", ".join((*_SUMMED, "errors"))
_SUMS = ", ".join(f"sum({name})" for name in (*_SUMMED, "errors"))

_TABLES = f"""
ALTER TABLE usage_daily ADD COLUMN {_ERRORS};
CREATE TABLE usage_monthly (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    month date NOT NULL,
    period_id text NOT NULL,
    key_id uuid NOT NULL,
    model text NOT NULL,
    {_COUNTS},
    {_ERRORS},
    CONSTRAINT pk_usage_monthly PRIMARY KEY (tenant_id, user_id, month, period_id, key_id, model)
) WITH (fillfactor = 70);
CREATE INDEX ix_usage_monthly_tenant_id_month ON usage_monthly (tenant_id, month);
CREATE TABLE usage_by_day (
    tenant_id uuid NOT NULL,
    day date NOT NULL,
    period_id text NOT NULL,
    model text NOT NULL,
    shard smallint NOT NULL,
    {_COUNTS},
    {_ERRORS},
    CONSTRAINT pk_usage_by_day PRIMARY KEY (tenant_id, day, period_id, model, shard)
) WITH (fillfactor = 50);
CREATE TABLE usage_checkpoints (
    tenant_id uuid NOT NULL,
    month date NOT NULL,
    day date NOT NULL,
    period_id text NOT NULL,
    {_COUNTS},
    CONSTRAINT pk_usage_checkpoints PRIMARY KEY (tenant_id, month, day, period_id)
);
"""

# Existing usage: the errors from the rows, then both rollups from the daily one.
_FILL = f"""
UPDATE usage_daily d
   SET errors = r.errors
  FROM (
    SELECT tenant_id, user_id, day, period_id, key_id, model, count(*) AS errors
      FROM usage_requests
     WHERE state = 'settled'
       AND outcome IN ('not_sent', 'upstream_refused', 'upstream_broke', 'deadline', 'shutdown', 'lost')
     GROUP BY tenant_id, user_id, day, period_id, key_id, model
  ) r
 WHERE (d.tenant_id, d.user_id, d.day, d.period_id, d.key_id, d.model)
     = (r.tenant_id, r.user_id, r.day, r.period_id, r.key_id, r.model);
INSERT INTO usage_monthly (tenant_id, user_id, month, period_id, key_id, model, {_NAMES})
SELECT tenant_id, user_id, date_trunc('month', day)::date, period_id, key_id, model, {_SUMS}
  FROM usage_daily
 GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO usage_by_day (tenant_id, day, period_id, model, shard, {_NAMES})
SELECT tenant_id, day, period_id, model, -1, {_SUMS}
  FROM usage_daily
 GROUP BY 1, 2, 3, 4;
"""  # noqa: S608 - column names of this file


def upgrade() -> None:
    """Locks out settlements first: an older process would write the daily rollup alone."""
    op.execute("LOCK TABLE usage_daily IN EXCLUSIVE MODE")
    for statement in (_TABLES + _FILL).split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drops them; they can be recomputed from the rows."""
    for table in ("usage_checkpoints", "usage_by_day", "usage_monthly"):
        op.execute(f"DROP TABLE {table}")
    op.execute("ALTER TABLE usage_daily DROP COLUMN errors")
