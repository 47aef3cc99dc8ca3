"""Tables of billing: priced plans, Razorpay's plans, periods, bills, charges, payments, webhooks, alerts."""

from alembic import op

revision = "0005"
down_revision = "0004"

_PLANS = """
ALTER TABLE plans
    ADD COLUMN base_paise bigint NOT NULL DEFAULT 0,
    ADD COLUMN meters jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN past_allowance text NOT NULL DEFAULT 'block',
    ADD COLUMN ceiling_paise bigint,
    ADD COLUMN when_unpaid text NOT NULL DEFAULT 'block',
    ADD COLUMN trial_days integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT ck_plans_past_allowance CHECK (past_allowance IN ('block', 'bill')),
    ADD CONSTRAINT ck_plans_when_unpaid CHECK (when_unpaid IN ('block', 'free'))
"""

_TABLES = """
CREATE TABLE razorpay_plans (
    code text NOT NULL,
    version integer NOT NULL,
    treatment text NOT NULL,
    gross_paise bigint NOT NULL,
    state text NOT NULL,
    razorpay_id text,
    tried_ms bigint,
    error text,
    CONSTRAINT pk_razorpay_plans PRIMARY KEY (code, version, treatment),
    CONSTRAINT fk_razorpay_plans_code_version FOREIGN KEY(code, version) REFERENCES plans (code, version),
    CONSTRAINT ck_razorpay_plans_state CHECK (state IN ('intended', 'submitting', 'created')),
    CONSTRAINT uq_razorpay_plans_razorpay_id UNIQUE (razorpay_id)
);
CREATE TABLE razorpay_account (
    id smallint NOT NULL,
    mode text NOT NULL,
    key_id text NOT NULL,
    account_id text,
    CONSTRAINT pk_razorpay_account PRIMARY KEY (id),
    CONSTRAINT ck_razorpay_account_single CHECK (id = 1),
    CONSTRAINT ck_razorpay_account_mode CHECK (mode IN ('sandbox', 'test', 'live'))
);
CREATE TABLE operator_profile (
    id smallint NOT NULL,
    profile jsonb NOT NULL,
    CONSTRAINT pk_operator_profile PRIMARY KEY (id),
    CONSTRAINT ck_operator_profile_single CHECK (id = 1)
);
CREATE TABLE billing_profiles (
    tenant_id uuid NOT NULL,
    profile jsonb NOT NULL,
    CONSTRAINT pk_billing_profiles PRIMARY KEY (tenant_id),
    CONSTRAINT fk_billing_profiles_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE TABLE billing_accounts (
    tenant_id uuid NOT NULL,
    CONSTRAINT pk_billing_accounts PRIMARY KEY (tenant_id),
    CONSTRAINT fk_billing_accounts_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE TABLE subscriptions (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    state text NOT NULL,
    is_open boolean NOT NULL,
    plan_code text NOT NULL,
    plan_version integer NOT NULL,
    supply jsonb NOT NULL,
    gross_paise bigint NOT NULL,
    replaces uuid,
    total_count integer NOT NULL,
    wanted_start_ms bigint,
    expire_by_ms bigint,
    created_ms bigint NOT NULL,
    tried_ms bigint,
    error text,
    razorpay_id text,
    short_url text,
    applied bigint DEFAULT '0' NOT NULL,
    fetched_ms bigint,
    status text,
    payment_method text,
    international boolean,
    current_start_ms bigint,
    current_end_ms bigint,
    charge_at_ms bigint,
    start_ms bigint,
    ended_ms bigint,
    paid_count integer DEFAULT '0' NOT NULL,
    remaining_count integer,
    authorised_ms bigint,
    paid_through_ms bigint,
    cancel_at_ms bigint,
    cancel_state text,
    cancel_reason text,
    wanted text,
    CONSTRAINT pk_subscriptions PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_subscriptions_state CHECK (state IN ('intended', 'submitting', 'submitted', 'void')),
    CONSTRAINT fk_subscriptions_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_subscriptions_razorpay_id UNIQUE (razorpay_id)
);
CREATE INDEX ix_subscriptions_state ON subscriptions (state) WHERE state IN ('intended', 'submitting');
CREATE UNIQUE INDEX uq_subscriptions_open ON subscriptions (tenant_id) WHERE is_open;
CREATE TABLE billing_periods (
    tenant_id uuid NOT NULL,
    period_id text NOT NULL,
    kind text NOT NULL,
    starts_ms bigint NOT NULL,
    ends_ms bigint NOT NULL,
    foreseen boolean DEFAULT 'false' NOT NULL,
    subscription_id uuid,
    razorpay_invoice_id text,
    paid boolean DEFAULT 'false' NOT NULL,
    plan_code text NOT NULL,
    plan_version integer NOT NULL,
    terms jsonb NOT NULL,
    state text DEFAULT 'open' NOT NULL,
    closed_ms bigint,
    reading jsonb,
    CONSTRAINT pk_billing_periods PRIMARY KEY (tenant_id, period_id),
    CONSTRAINT ck_billing_periods_kind CHECK (kind IN ('cycle', 'trial', 'month')),
    CONSTRAINT ck_billing_periods_state CHECK (state IN ('open', 'closed')),
    CONSTRAINT fk_billing_periods_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE INDEX ix_billing_periods_ends_ms ON billing_periods (ends_ms) WHERE state = 'open';
CREATE TABLE bills (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    period_id text NOT NULL,
    seq integer NOT NULL,
    starts_ms bigint NOT NULL,
    ends_ms bigint NOT NULL,
    subscription_id uuid,
    plan_code text NOT NULL,
    plan_version integer NOT NULL,
    lines jsonb NOT NULL,
    taken jsonb DEFAULT '{}' NOT NULL,
    taxable_paise bigint NOT NULL,
    supply jsonb NOT NULL,
    tax jsonb NOT NULL,
    total_paise bigint NOT NULL,
    credited_paise bigint DEFAULT '0' NOT NULL,
    paid_paise bigint DEFAULT '0' NOT NULL,
    customer jsonb NOT NULL,
    supplier jsonb NOT NULL,
    number text,
    refers_to uuid,
    reason text,
    razorpay_invoice_id text,
    created_ms bigint NOT NULL,
    issued_ms bigint,
    due_ms bigint,
    paid_ms bigint,
    CONSTRAINT pk_bills PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_bills_kind CHECK (kind IN ('base', 'overage', 'credit_note')),
    CONSTRAINT ck_bills_state
        CHECK (state IN ('held', 'open', 'paid', 'void', 'waived', 'issued', 'credited')),
    CONSTRAINT fk_bills_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_bills_number UNIQUE (number)
);
CREATE INDEX ix_bills_id ON bills (id);
CREATE INDEX ix_bills_state ON bills (state) WHERE state IN ('held', 'open');
CREATE INDEX ix_bills_tenant_id_period_id ON bills (tenant_id, period_id);
CREATE UNIQUE INDEX uq_bills_period_seq ON bills (tenant_id, period_id, kind, seq);
CREATE UNIQUE INDEX uq_bills_razorpay_invoice_id ON bills (tenant_id, razorpay_invoice_id);
CREATE TABLE document_series (
    series text NOT NULL,
    last text NOT NULL,
    CONSTRAINT pk_document_series PRIMARY KEY (series)
);
CREATE TABLE charges (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    bill_id uuid NOT NULL,
    attempt integer NOT NULL,
    instrument text NOT NULL,
    state text NOT NULL,
    amount_paise bigint NOT NULL,
    reference text NOT NULL,
    subscription_id uuid,
    razorpay_id text,
    short_url text,
    order_id text,
    razorpay_invoice_id text,
    wanted_void text,
    expire_by_ms bigint,
    created_ms bigint NOT NULL,
    tried_ms bigint,
    checked_ms bigint,
    ended_ms bigint,
    error text,
    CONSTRAINT pk_charges PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_charges_state
        CHECK (state IN ('intended', 'submitting', 'submitted', 'paid', 'failed', 'void')),
    CONSTRAINT ck_charges_instrument CHECK (instrument IN ('payment_link', 'addon')),
    CONSTRAINT fk_charges_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_charges_reference UNIQUE (reference),
    CONSTRAINT uq_charges_razorpay_id UNIQUE (razorpay_id)
);
CREATE INDEX ix_charges_state ON charges (state) WHERE state IN ('intended', 'submitting', 'submitted');
CREATE UNIQUE INDEX uq_charges_attempt ON charges (tenant_id, bill_id, attempt);
CREATE UNIQUE INDEX uq_charges_live ON charges (tenant_id, bill_id)
        WHERE state IN ('intended', 'submitting', 'submitted');
CREATE TABLE payments (
    tenant_id uuid NOT NULL,
    razorpay_id text NOT NULL,
    status text NOT NULL,
    amount_paise bigint NOT NULL,
    method text,
    international boolean,
    order_id text,
    razorpay_invoice_id text,
    charge_id uuid,
    subscription_id uuid,
    bill_id uuid,
    applied_paise bigint DEFAULT '0' NOT NULL,
    excess_paise bigint DEFAULT '0' NOT NULL,
    refunded_paise bigint DEFAULT '0' NOT NULL,
    captured_ms bigint,
    CONSTRAINT pk_payments PRIMARY KEY (tenant_id, razorpay_id),
    CONSTRAINT fk_payments_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE INDEX ix_payments_tenant_id_bill_id ON payments (tenant_id, bill_id);
CREATE UNIQUE INDEX uq_payments_razorpay_id ON payments (razorpay_id);
CREATE TABLE refunds (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    payment_id text NOT NULL,
    amount_paise bigint NOT NULL,
    cause text NOT NULL,
    state text NOT NULL,
    razorpay_id text,
    created_ms bigint NOT NULL,
    tried_ms bigint,
    error text,
    CONSTRAINT pk_refunds PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_refunds_state
        CHECK (state IN ('awaiting_operator', 'intended', 'submitting', 'pending', 'processed', 'failed', 'void')),
    CONSTRAINT fk_refunds_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_refunds_razorpay_id UNIQUE (razorpay_id)
);
CREATE INDEX ix_refunds_state ON refunds (state) WHERE state IN ('intended', 'submitting', 'pending');
CREATE INDEX ix_refunds_tenant_id_payment_id ON refunds (tenant_id, payment_id);
CREATE UNIQUE INDEX uq_refunds_cause ON refunds (tenant_id, cause);
CREATE TABLE disputes (
    tenant_id uuid NOT NULL,
    razorpay_id text NOT NULL,
    payment_id text NOT NULL,
    amount_paise bigint NOT NULL,
    status text NOT NULL,
    entity jsonb NOT NULL,
    seen_ms bigint NOT NULL,
    CONSTRAINT pk_disputes PRIMARY KEY (tenant_id, razorpay_id),
    CONSTRAINT fk_disputes_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE TABLE webhook_events (
    event_id text NOT NULL,
    kind text NOT NULL,
    account_id text,
    body bytea NOT NULL,
    received_ms bigint NOT NULL,
    state text NOT NULL,
    tries integer DEFAULT '0' NOT NULL,
    due_ms bigint NOT NULL,
    ended_ms bigint,
    tenant_id uuid,
    reason text,
    CONSTRAINT pk_webhook_events PRIMARY KEY (event_id),
    CONSTRAINT ck_webhook_events_state CHECK (state IN ('received', 'applied', 'ignored', 'parked'))
);
CREATE INDEX ix_webhook_events_due_ms ON webhook_events (due_ms) WHERE state = 'received';
CREATE INDEX ix_webhook_events_parked ON webhook_events (state) WHERE state = 'parked';
CREATE INDEX ix_webhook_events_received_ms ON webhook_events (received_ms);
CREATE TABLE razorpay_reconciliations (
    id uuid NOT NULL,
    ran_ms bigint NOT NULL,
    healed integer NOT NULL,
    unexplained integer NOT NULL,
    report jsonb NOT NULL,
    CONSTRAINT pk_razorpay_reconciliations PRIMARY KEY (id)
);
CREATE TABLE billing_findings (
    key text NOT NULL,
    tenant_id uuid,
    kind text NOT NULL,
    detail jsonb NOT NULL,
    seen_ms bigint NOT NULL,
    closed_ms bigint,
    CONSTRAINT pk_billing_findings PRIMARY KEY (key)
);
CREATE INDEX ix_billing_findings_closed_ms ON billing_findings (closed_ms) WHERE closed_ms IS NULL;
CREATE TABLE alert_endpoints (
    tenant_id uuid NOT NULL,
    url text NOT NULL,
    secret bytea NOT NULL,
    previous_secret bytea,
    enabled boolean DEFAULT 'true' NOT NULL,
    created_ms bigint NOT NULL,
    CONSTRAINT pk_alert_endpoints PRIMARY KEY (tenant_id),
    CONSTRAINT fk_alert_endpoints_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE TABLE alerts (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    key text NOT NULL,
    kind text NOT NULL,
    data jsonb NOT NULL,
    at_ms bigint NOT NULL,
    state text NOT NULL,
    tries integer DEFAULT '0' NOT NULL,
    due_ms bigint,
    CONSTRAINT pk_alerts PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_alerts_state CHECK (state IN ('none', 'pending', 'delivered', 'failed')),
    CONSTRAINT fk_alerts_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE INDEX ix_alerts_due_ms ON alerts (due_ms) WHERE state = 'pending';
CREATE UNIQUE INDEX uq_alerts_key ON alerts (tenant_id, key);
CREATE TABLE alert_deliveries (
    tenant_id uuid NOT NULL,
    alert_id uuid NOT NULL,
    attempt integer NOT NULL,
    at_ms bigint NOT NULL,
    status integer,
    error text,
    took_ms bigint NOT NULL,
    CONSTRAINT pk_alert_deliveries PRIMARY KEY (tenant_id, alert_id, attempt),
    CONSTRAINT fk_alert_deliveries_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
"""


def upgrade() -> None:
    """Runs one statement at a time: a prepared statement cannot hold several."""
    op.execute(_PLANS)
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Reverts everything that `upgrade` did. Deletes bills and payments: for an empty database only."""
    for table in (
        "alert_deliveries",
        "alerts",
        "alert_endpoints",
        "billing_findings",
        "razorpay_reconciliations",
        "webhook_events",
        "disputes",
        "refunds",
        "payments",
        "charges",
        "document_series",
        "bills",
        "billing_periods",
        "subscriptions",
        "billing_accounts",
        "billing_profiles",
        "operator_profile",
        "razorpay_account",
        "razorpay_plans",
    ):
        op.execute(f"DROP TABLE {table}")
    for column in ("base_paise", "meters", "past_allowance", "ceiling_paise", "when_unpaid", "trial_days"):
        op.execute(f"ALTER TABLE plans DROP COLUMN {column}")
