"""Money: the ledger, mandates, wallets and coupons, states of plans, refused requests, and compared days.

Only additions: the statements of older processes stay valid. The constraints on existing rows are migration 0014.
"""

from alembic import op

revision = "0013"
down_revision = "0012"

_PLANS = """
ALTER TABLE plans
    ADD COLUMN state text DEFAULT 'offered' NOT NULL,
    ADD COLUMN threshold_paise bigint,
    DROP CONSTRAINT ck_plans_past_allowance,
    ADD CONSTRAINT ck_plans_past_allowance CHECK (past_allowance IN ('block', 'bill', 'prepaid')),
    ADD CONSTRAINT ck_plans_state CHECK (state IN ('draft', 'offered', 'withdrawn')),
    ADD CONSTRAINT ck_plans_threshold_paise CHECK (threshold_paise > 0)
"""
# Only the newest version of a plan could be found without naming a version, so only that one was for sale.
_WITHDRAW_OLD = """
UPDATE plans AS p SET state = 'withdrawn'
 WHERE EXISTS (SELECT 1 FROM plans AS newer WHERE newer.code = p.code AND newer.version > p.version)
"""
_BILLS = """
ALTER TABLE bills
    DROP CONSTRAINT ck_bills_kind,
    ADD CONSTRAINT ck_bills_kind
        CHECK (kind IN ('base', 'overage', 'credit_note', 'receipt_voucher', 'refund_voucher'));
ALTER TABLE charges
    ADD COLUMN mandate_id uuid,
    DROP CONSTRAINT ck_charges_instrument,
    ADD CONSTRAINT ck_charges_instrument CHECK (instrument IN ('payment_link', 'addon', 'mandate', 'qr_code'))
"""
_LEDGER = """
CREATE TABLE ledger_entries (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    at_ms bigint NOT NULL,
    kind text NOT NULL,
    reference text NOT NULL,
    bill_id uuid,
    payment_id text,
    refund_id uuid,
    receivable bigint DEFAULT 0 NOT NULL,
    revenue bigint DEFAULT 0 NOT NULL,
    gst_payable bigint DEFAULT 0 NOT NULL,
    cash bigint DEFAULT 0 NOT NULL,
    customer_credit bigint DEFAULT 0 NOT NULL,
    write_off bigint DEFAULT 0 NOT NULL,
    detail jsonb DEFAULT '{}' NOT NULL,
    CONSTRAINT pk_ledger_entries PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_ledger_entries_kind CHECK (kind IN ('bill', 'payment', 'refund', 'credit_note', 'write_off',
        'carried', 'late_money', 'dispute', 'top_up', 'wallet_usage', 'wallet_refund', 'opening')),
    CONSTRAINT ck_ledger_entries_balanced
        CHECK (receivable + revenue + gst_payable + cash + customer_credit + write_off = 0),
    CONSTRAINT fk_ledger_entries_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE UNIQUE INDEX uq_ledger_entries_reference ON ledger_entries (tenant_id, reference);
CREATE INDEX ix_ledger_entries_tenant_id_bill_id ON ledger_entries (tenant_id, bill_id);
CREATE INDEX ix_ledger_entries_at_ms ON ledger_entries (at_ms)
"""
_MANDATES = """
CREATE TABLE mandates (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    state text NOT NULL,
    method text NOT NULL,
    max_paise bigint NOT NULL,
    reference text NOT NULL,
    contact text NOT NULL,
    created_ms bigint NOT NULL,
    tried_ms bigint,
    checked_ms bigint,
    error text,
    razorpay_id text,
    short_url text,
    order_id text,
    customer_id text,
    token_id text,
    expires_ms bigint,
    authorised_ms bigint,
    paused_ms bigint,
    ended_ms bigint,
    end_reason text,
    wanted_end text,
    CONSTRAINT pk_mandates PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_mandates_state
        CHECK (state IN ('intended', 'submitting', 'submitted', 'active', 'ended', 'void')),
    CONSTRAINT ck_mandates_max_paise CHECK (max_paise > 0),
    CONSTRAINT fk_mandates_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id),
    CONSTRAINT uq_mandates_reference UNIQUE (reference),
    CONSTRAINT uq_mandates_razorpay_id UNIQUE (razorpay_id),
    CONSTRAINT uq_mandates_token_id UNIQUE (token_id)
);
CREATE INDEX ix_mandates_state ON mandates (state) WHERE state IN ('intended', 'submitting');
CREATE UNIQUE INDEX uq_mandates_open ON mandates (tenant_id) WHERE state IN ('intended', 'submitting', 'submitted');
CREATE UNIQUE INDEX uq_mandates_active ON mandates (tenant_id) WHERE state = 'active'
"""
_WALLETS = """
CREATE TABLE wallet_entries (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    paise bigint NOT NULL,
    reference text NOT NULL,
    expires_ms bigint,
    of_id uuid,
    bill_id uuid,
    period_id text,
    created_ms bigint NOT NULL,
    reason text DEFAULT '' NOT NULL,
    CONSTRAINT pk_wallet_entries PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_wallet_entries_kind
        CHECK (kind IN ('top_up', 'promotion', 'usage', 'expiry', 'refund', 'adjustment')),
    CONSTRAINT fk_wallet_entries_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE UNIQUE INDEX uq_wallet_entries_reference ON wallet_entries (tenant_id, reference);
CREATE TABLE wallet_settings (
    tenant_id uuid NOT NULL,
    low_paise bigint,
    top_up_below_paise bigint,
    top_up_paise bigint,
    CONSTRAINT pk_wallet_settings PRIMARY KEY (tenant_id),
    CONSTRAINT ck_wallet_settings_low_paise CHECK (low_paise >= 0),
    CONSTRAINT ck_wallet_settings_top_up CHECK ((top_up_below_paise IS NULL) = (top_up_paise IS NULL)),
    CONSTRAINT ck_wallet_settings_top_up_amounts CHECK (top_up_below_paise >= 0 AND top_up_paise > 0),
    CONSTRAINT fk_wallet_settings_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE TABLE coupons (
    code text NOT NULL,
    paise bigint NOT NULL,
    credit_days integer,
    expires_ms bigint,
    max_uses integer,
    uses integer DEFAULT 0 NOT NULL,
    created_ms bigint NOT NULL,
    CONSTRAINT pk_coupons PRIMARY KEY (code),
    CONSTRAINT ck_coupons_paise CHECK (paise > 0),
    CONSTRAINT ck_coupons_credit_days CHECK (credit_days > 0),
    CONSTRAINT ck_coupons_uses CHECK (uses >= 0 AND uses <= coalesce(max_uses, uses))
)
"""
_REFUSALS = """
CREATE TABLE usage_refusals (
    tenant_id uuid NOT NULL,
    day date NOT NULL,
    code text NOT NULL,
    requests bigint NOT NULL,
    CONSTRAINT pk_usage_refusals PRIMARY KEY (tenant_id, day, code),
    CONSTRAINT fk_usage_refusals_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
)
"""
_COMPARED = """
CREATE TABLE compared_days (
    starts_ms bigint NOT NULL,
    compared_ms bigint NOT NULL,
    CONSTRAINT pk_compared_days PRIMARY KEY (starts_ms)
)
"""
_NEW = ("compared_days", "usage_refusals", "coupons", "wallet_settings", "wallet_entries", "mandates", "ledger_entries")
_OLD_CHECKS = """
ALTER TABLE plans
    DROP CONSTRAINT ck_plans_threshold_paise,
    DROP CONSTRAINT ck_plans_state,
    DROP COLUMN state,
    DROP COLUMN threshold_paise,
    DROP CONSTRAINT ck_plans_past_allowance,
    ADD CONSTRAINT ck_plans_past_allowance CHECK (past_allowance IN ('block', 'bill'));
ALTER TABLE charges
    DROP COLUMN mandate_id,
    DROP CONSTRAINT ck_charges_instrument,
    ADD CONSTRAINT ck_charges_instrument CHECK (instrument IN ('payment_link', 'addon'));
ALTER TABLE bills
    DROP CONSTRAINT ck_bills_kind,
    ADD CONSTRAINT ck_bills_kind CHECK (kind IN ('base', 'overage', 'credit_note'))
"""


def upgrade() -> None:
    """Adds tables, columns and kinds, and withdraws the older versions of every plan."""
    for statements in (_PLANS, _WITHDRAW_OLD, _BILLS, _LEDGER, _MANDATES, _WALLETS, _REFUSALS, _COMPARED):
        _execute(statements)


def downgrade() -> None:
    """Drops everything again; fails if there are vouchers, debits or prepaid plans."""
    _execute(_OLD_CHECKS)
    for table in _NEW:
        op.execute(f"DROP TABLE {table}")


def _execute(statements: str) -> None:
    """Runs one statement at a time: a prepared statement cannot hold several."""
    for statement in statements.split(";\n"):
        op.execute(statement)
