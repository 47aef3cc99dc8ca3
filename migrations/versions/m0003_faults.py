"""Tables for fault tolerance: heartbeats of processes, entries, fallback to Postgres, reconciliations."""

from alembic import op

revision = "0003"
down_revision = "0002"

_COUNTS = """
    requests bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cache_read_tokens bigint NOT NULL DEFAULT 0,
    cache_write_5m_tokens bigint NOT NULL DEFAULT 0,
    cache_write_1h_tokens bigint NOT NULL DEFAULT 0,
    cost_nano_usd bigint NOT NULL DEFAULT 0
"""

_CHANGES = f"""
ALTER TABLE tenant_epochs ADD COLUMN fallback_until timestamptz;
ALTER TABLE usage_requests ADD COLUMN hold_until timestamptz;
CREATE INDEX ix_usage_requests_process ON usage_requests (process_id) WHERE state = 'open';
CREATE INDEX ix_usage_requests_held ON usage_requests (tenant_id, id) WHERE hold_until IS NOT NULL;
CREATE TABLE processes (
    id uuid CONSTRAINT pk_processes PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    beat bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    progress json NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE output_densities (
    model text CONSTRAINT pk_output_densities PRIMARY KEY,
    output_chars bigint NOT NULL,
    output_tokens bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE usage_entries (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('revision', 'correction', 'credit', 'repair')),
    request_id uuid,
    user_id uuid,
    key_id uuid,
    model text,
    period_id text NOT NULL,
    day date,
    source text CHECK (source IN ('final', 'counted', 'estimated')),
    outcome text,
    actor text NOT NULL,
    actor_key_id uuid,
    reason text NOT NULL,
    reference text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    {_COUNTS},
    CONSTRAINT pk_usage_entries PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX uq_usage_entries_reference ON usage_entries (tenant_id, reference) WHERE reference IS NOT NULL;
CREATE INDEX ix_usage_entries_request ON usage_entries (tenant_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX ix_usage_entries_period ON usage_entries (tenant_id, period_id);
CREATE TABLE reconciliations (
    id uuid CONSTRAINT pk_reconciliations PRIMARY KEY,
    ran_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    drifts integer NOT NULL,
    report jsonb NOT NULL
);
"""


def upgrade() -> None:
    """Runs one statement at a time: a prepared statement cannot hold several."""
    for statement in _CHANGES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Reverts everything that `upgrade` did."""
    for table in ("reconciliations", "usage_entries", "output_densities", "processes"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP INDEX ix_usage_requests_held")
    op.execute("DROP INDEX ix_usage_requests_process")
    op.execute("ALTER TABLE usage_requests DROP COLUMN hold_until")
    op.execute("ALTER TABLE tenant_epochs DROP COLUMN fallback_until")
