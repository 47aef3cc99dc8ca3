"""Tables of tenancy, prices, limits, the journal, its rollup and its meters."""

from alembic import op

revision = "0001"
down_revision = None

_COUNTS = """
    requests bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cache_read_tokens bigint NOT NULL DEFAULT 0,
    cache_write_5m_tokens bigint NOT NULL DEFAULT 0,
    cache_write_1h_tokens bigint NOT NULL DEFAULT 0,
    cost_nano_usd bigint NOT NULL DEFAULT 0
"""

_TABLES = f"""
CREATE TABLE tenants (
    id uuid CONSTRAINT pk_tenants PRIMARY KEY,
    slug text NOT NULL CONSTRAINT uq_tenants_slug UNIQUE,
    name text NOT NULL,
    plan_code text,
    plan_version integer,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE users (
    tenant_id uuid NOT NULL CONSTRAINT fk_users_tenant_id REFERENCES tenants (id),
    id uuid NOT NULL,
    external_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_users PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_users_tenant_id_external_id UNIQUE (tenant_id, external_id)
);
CREATE INDEX ix_users_id ON users (id);
CREATE TABLE api_keys (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    name text NOT NULL,
    hash bytea NOT NULL,
    prefix text NOT NULL,
    scopes text[] NOT NULL,
    models text[],
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_api_keys PRIMARY KEY (tenant_id, id),
    CONSTRAINT fk_api_keys_tenant_id_user_id FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);
CREATE INDEX ix_api_keys_hash ON api_keys (hash);
CREATE INDEX ix_api_keys_id ON api_keys (id);
CREATE INDEX ix_api_keys_tenant_id_user_id ON api_keys (tenant_id, user_id);
CREATE TABLE audit_log (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    actor_key_id uuid,
    action text NOT NULL,
    target text NOT NULL,
    before jsonb,
    after jsonb,
    request_id text,
    CONSTRAINT pk_audit_log PRIMARY KEY (tenant_id, id)
);
CREATE TABLE plans (
    code text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    limits jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_plans PRIMARY KEY (code, version)
);
CREATE TABLE tenant_epochs (
    tenant_id uuid CONSTRAINT pk_tenant_epochs PRIMARY KEY
        CONSTRAINT fk_tenant_epochs_tenant_id REFERENCES tenants (id),
    epoch bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE limit_sets (
    tenant_id uuid NOT NULL CONSTRAINT fk_limit_sets_tenant_id REFERENCES tenants (id),
    subject_id uuid NOT NULL,
    limits jsonb NOT NULL,
    concurrency integer,
    CONSTRAINT pk_limit_sets PRIMARY KEY (tenant_id, subject_id)
);
CREATE TABLE entitlements (
    tenant_id uuid CONSTRAINT pk_entitlements PRIMARY KEY
        CONSTRAINT fk_entitlements_tenant_id REFERENCES tenants (id),
    version bigint NOT NULL,
    plan_version text NOT NULL,
    limits jsonb NOT NULL
);
CREATE TABLE prices (
    id uuid CONSTRAINT pk_prices PRIMARY KEY,
    model text NOT NULL,
    effective_from timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_prices_model_effective_from UNIQUE (model, effective_from)
);
CREATE TABLE price_bands (
    price_id uuid NOT NULL CONSTRAINT fk_price_bands_price_id REFERENCES prices (id) ON DELETE CASCADE,
    over_prompt_tokens bigint NOT NULL CHECK (over_prompt_tokens >= 0),
    input_rate bigint NOT NULL CHECK (input_rate >= 0),
    output_rate bigint NOT NULL CHECK (output_rate >= 0),
    cache_read_rate bigint NOT NULL CHECK (cache_read_rate >= 0),
    cache_write_5m_rate bigint NOT NULL CHECK (cache_write_5m_rate >= 0),
    cache_write_1h_rate bigint NOT NULL CHECK (cache_write_1h_rate >= 0),
    CONSTRAINT pk_price_bands PRIMARY KEY (price_id, over_prompt_tokens)
);
CREATE TABLE usage_requests (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    key_id uuid,
    process_id uuid,
    state text NOT NULL CHECK (state IN ('open', 'settled', 'void')),
    epoch bigint,
    price_id uuid,
    plan_version text,
    period_id text,
    day date,
    opened_at timestamptz,
    deadline_at timestamptz,
    model_asked text,
    held_prompt_tokens bigint,
    held_output_tokens bigint,
    held_nano_usd bigint,
    settled_at timestamptz,
    outcome text,
    source text CHECK (source IN ('final', 'counted', 'estimated')),
    model text,
    model_known boolean,
    stop_reason text,
    upstream_request_id text,
    upstream_message_id text,
    output_chars bigint,
    {_COUNTS},
    CONSTRAINT pk_usage_requests PRIMARY KEY (tenant_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX ix_usage_requests_open ON usage_requests (tenant_id, id) WHERE state = 'open';
CREATE INDEX ix_usage_requests_user ON usage_requests (tenant_id, user_id, id);
CREATE TABLE usage_daily (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    day date NOT NULL,
    period_id text NOT NULL,
    key_id uuid NOT NULL,
    model text NOT NULL,
    {_COUNTS},
    CONSTRAINT pk_usage_daily PRIMARY KEY (tenant_id, user_id, day, period_id, key_id, model)
) WITH (fillfactor = 70);
CREATE INDEX ix_usage_daily_tenant_id_day ON usage_daily (tenant_id, day);
CREATE TABLE usage_meters (
    tenant_id uuid NOT NULL,
    period_id text NOT NULL,
    shard smallint NOT NULL,
    {_COUNTS},
    CONSTRAINT pk_usage_meters PRIMARY KEY (tenant_id, period_id, shard)
) WITH (fillfactor = 50);
"""


def upgrade() -> None:
    """Runs one statement at a time: a prepared statement cannot hold several."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drops everything that `upgrade` created."""
    for table in (
        "usage_meters",
        "usage_daily",
        "usage_requests",
        "price_bands",
        "prices",
        "entitlements",
        "limit_sets",
        "tenant_epochs",
        "plans",
        "audit_log",
        "api_keys",
        "users",
        "tenants",
    ):
        op.execute(f"DROP TABLE {table}")
