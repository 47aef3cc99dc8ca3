"""The ledger of existing rows, constraints among documents and money, and documents that can't change.

A numbered document keeps its lines, amounts, tax, parties and dates, and an entry of the ledger stays as it is:
triggers refuse every change of them. Rows from before the ledger get entries of the kind `opening`, dated now.
"""

from alembic import op

from core.errors import NakaError

revision = "0014"
down_revision = "0013"


class RowsRefused(NakaError):
    """Rows that the constraints of this revision don't allow: their table, ids, and the rule."""


_COLUMNS = """
ALTER TABLE bills
    ADD COLUMN carried_paise bigint DEFAULT 0 NOT NULL,
    ADD COLUMN written_off_paise bigint DEFAULT 0 NOT NULL;
ALTER TABLE billing_findings ADD COLUMN resolved boolean DEFAULT false NOT NULL
"""
_CHECKS = """
ALTER TABLE bills
    DROP CONSTRAINT ck_bills_state,
    ADD CONSTRAINT ck_bills_state
        CHECK (state IN ('held', 'open', 'paid', 'void', 'waived', 'issued', 'credited', 'written_off')),
    ADD CONSTRAINT ck_bills_numbered CHECK (number IS NULL OR issued_ms IS NOT NULL),
    ADD CONSTRAINT ck_bills_refers_to CHECK (kind <> 'credit_note' OR refers_to IS NOT NULL),
    ADD CONSTRAINT ck_bills_credited_paise CHECK (credited_paise BETWEEN 0 AND greatest(total_paise, 0)),
    ADD CONSTRAINT ck_bills_paid_paise CHECK (paid_paise >= 0),
    ADD CONSTRAINT ck_bills_written_off_paise CHECK (written_off_paise >= 0),
    ADD CONSTRAINT ck_bills_sign
        CHECK (CASE WHEN kind IN ('credit_note', 'refund_voucher') THEN total_paise <= 0 ELSE total_paise >= 0 END);
ALTER TABLE charges ADD CONSTRAINT ck_charges_amount_paise CHECK (amount_paise > 0);
ALTER TABLE payments
    ADD CONSTRAINT ck_payments_amounts
        CHECK (applied_paise >= 0 AND excess_paise >= 0 AND applied_paise + excess_paise <= amount_paise),
    ADD CONSTRAINT ck_payments_refunded_paise CHECK (refunded_paise BETWEEN 0 AND amount_paise);
ALTER TABLE refunds ADD CONSTRAINT ck_refunds_amount_paise CHECK (amount_paise > 0)
"""
_KEYS = (
    ("bills", "refers_to", "bills", "id"),
    ("charges", "bill_id", "bills", "id"),
    ("charges", "mandate_id", "mandates", "id"),
    ("payments", "bill_id", "bills", "id"),
    ("payments", "charge_id", "charges", "id"),
    ("refunds", "payment_id", "payments", "razorpay_id"),
    ("disputes", "payment_id", "payments", "razorpay_id"),
    ("ledger_entries", "bill_id", "bills", "id"),
    ("ledger_entries", "payment_id", "payments", "razorpay_id"),
    ("ledger_entries", "refund_id", "refunds", "id"),
    ("wallet_entries", "bill_id", "bills", "id"),
    ("wallet_entries", "of_id", "wallet_entries", "id"),
)
"""Each with the tenant. Checked at the commit, so that rows of one transaction may come in any order."""
_RULES = (
    ("bills", "id", "number IS NOT NULL AND issued_ms IS NULL", "a numbered document has no date"),
    ("bills", "id", "kind = 'credit_note' AND refers_to IS NULL", "a credit note names no bill"),
    (
        "bills",
        "id",
        "credited_paise NOT BETWEEN 0 AND greatest(total_paise, 0)",
        "credited_paise is above the total",
    ),
    ("bills", "id", "paid_paise < 0", "paid_paise is negative"),
    (
        "bills",
        "id",
        "CASE WHEN kind IN ('credit_note', 'refund_voucher') THEN total_paise > 0 ELSE total_paise < 0 END",
        "total_paise has the wrong sign",
    ),
    ("charges", "id", "amount_paise <= 0", "amount_paise is not positive"),
    (
        "payments",
        "razorpay_id",
        "applied_paise < 0 OR excess_paise < 0 OR applied_paise + excess_paise > amount_paise",
        "applied_paise and excess_paise are not parts of amount_paise",
    ),
    (
        "payments",
        "razorpay_id",
        "refunded_paise NOT BETWEEN 0 AND amount_paise",
        "refunded_paise is above the amount",
    ),
    ("refunds", "id", "amount_paise <= 0", "amount_paise is not positive"),
)
"""Table, the column that names a row, the condition of a row that breaks a rule of `_CHECKS`, and that in words."""
_IDS = {"payments": "razorpay_id", "disputes": "razorpay_id"}
_NAMED = 5
"""Rows of one kind that the error names."""
_KEPT = """
    kind, period_id, seq, starts_ms, ends_ms, subscription_id, plan_code, plan_version, lines, taken, taxable_paise,
    supply, tax, total_paise, customer, supplier, number, refers_to, created_ms, issued_ms
"""
_DOCUMENTS = f"""
CREATE FUNCTION keep_document() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR ROW({", ".join(f"OLD.{name.strip()}" for name in _KEPT.split(","))})
        IS DISTINCT FROM ROW({", ".join(f"NEW.{name.strip()}" for name in _KEPT.split(","))})
    THEN
        RAISE EXCEPTION 'document % is issued and cannot change', OLD.number USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$
"""
_ENTRIES = """
CREATE FUNCTION keep_ledger_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entry % of the ledger cannot change', OLD.reference USING ERRCODE = 'restrict_violation';
END $$
"""
_TRIGGERS = """
CREATE TRIGGER keep_document BEFORE UPDATE OR DELETE ON bills
    FOR EACH ROW WHEN (OLD.number IS NOT NULL) EXECUTE FUNCTION keep_document();
CREATE TRIGGER keep_ledger_entry BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION keep_ledger_entry()
"""
# What a bill's customer has paid of it, or was credited, comes out of `customer_credit`, into which notes and payments
# go: payments of several bills don't store their parts.
_OPEN_BILLS = """
WITH documents AS (
    SELECT *, greatest(total_paise - credited_paise - paid_paise, 0) AS due,
           (SELECT coalesce(sum((line ->> 'tax_paise')::bigint), 0) FROM jsonb_array_elements(tax) AS line) AS taxes
      FROM bills WHERE number IS NOT NULL
)
INSERT INTO ledger_entries
    (tenant_id, id, at_ms, kind, reference, bill_id, receivable, revenue, gst_payable, customer_credit)
SELECT tenant_id, gen_random_uuid(), (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 'opening',
       'bill:' || id, id, CASE kind WHEN 'credit_note' THEN 0 ELSE due END,
       taxes - total_paise, -taxes, total_paise - CASE kind WHEN 'credit_note' THEN 0 ELSE due END
  FROM documents
"""
_OPEN_PAYMENTS = """
INSERT INTO ledger_entries (tenant_id, id, at_ms, kind, reference, bill_id, payment_id, cash, customer_credit)
SELECT tenant_id, gen_random_uuid(), (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 'opening',
       'payment:' || razorpay_id, bill_id, razorpay_id, amount_paise, -amount_paise
  FROM payments WHERE status IN ('captured', 'refunded')
"""
_OPEN_REFUNDS = """
INSERT INTO ledger_entries (tenant_id, id, at_ms, kind, reference, payment_id, refund_id, cash, customer_credit)
SELECT tenant_id, gen_random_uuid(), (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 'opening',
       'refund:' || id, payment_id, id, -amount_paise, amount_paise
  FROM refunds WHERE state = 'processed'
"""
_OPEN_DISPUTES = """
INSERT INTO ledger_entries (tenant_id, id, at_ms, kind, reference, payment_id, cash, customer_credit)
SELECT tenant_id, gen_random_uuid(), (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 'opening',
       'dispute:' || razorpay_id, payment_id, -amount_paise, amount_paise
  FROM disputes WHERE status = 'lost'
"""
_OLD = """
ALTER TABLE refunds DROP CONSTRAINT ck_refunds_amount_paise;
ALTER TABLE payments DROP CONSTRAINT ck_payments_refunded_paise, DROP CONSTRAINT ck_payments_amounts;
ALTER TABLE charges DROP CONSTRAINT ck_charges_amount_paise;
ALTER TABLE bills
    DROP CONSTRAINT ck_bills_state,
    ADD CONSTRAINT ck_bills_state
        CHECK (state IN ('held', 'open', 'paid', 'void', 'waived', 'issued', 'credited')),
    DROP CONSTRAINT ck_bills_sign,
    DROP CONSTRAINT ck_bills_written_off_paise,
    DROP CONSTRAINT ck_bills_paid_paise,
    DROP CONSTRAINT ck_bills_credited_paise,
    DROP CONSTRAINT ck_bills_refers_to,
    DROP CONSTRAINT ck_bills_numbered,
    DROP COLUMN written_off_paise,
    DROP COLUMN carried_paise;
ALTER TABLE billing_findings DROP COLUMN resolved
"""


def upgrade() -> None:
    """Books what exists, then adds the constraints and triggers. Raises RowsRefused."""
    if not op.get_context().as_sql:
        _refuse_rows()
    _execute(_COLUMNS)
    for opening in (_OPEN_BILLS, _OPEN_PAYMENTS, _OPEN_REFUNDS, _OPEN_DISPUTES):
        op.execute(opening)
    _execute(_CHECKS)
    for table, column, target, key in _KEYS:
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {_name(table, column)} FOREIGN KEY (tenant_id, {column}) "
            f"REFERENCES {target} (tenant_id, {key}) DEFERRABLE INITIALLY DEFERRED"
        )
    for function in (_DOCUMENTS, _ENTRIES):
        op.execute(function)
    _execute(_TRIGGERS)


def downgrade() -> None:
    """Drops the constraints, triggers and opening entries."""
    op.execute("DROP TRIGGER keep_ledger_entry ON ledger_entries")
    op.execute("DROP TRIGGER keep_document ON bills")
    op.execute("DROP FUNCTION keep_ledger_entry()")
    op.execute("DROP FUNCTION keep_document()")
    for table, column, _, _ in reversed(_KEYS):
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {_name(table, column)}")
    op.execute("DELETE FROM ledger_entries WHERE kind = 'opening'")
    _execute(_OLD)


def _refuse_rows() -> None:
    """Names the rows that break a rule, before anything is changed. Raises RowsRefused."""
    connection, faults = op.get_bind(), list[str]()
    missing = [(table, _IDS.get(table, "id"), *_without(table, *key)) for table, *key in _KEYS]
    for table, name, condition, words in (*_RULES, *missing):
        query = f"SELECT tenant_id, {name} FROM {table} WHERE {condition} ORDER BY 1, 2 LIMIT {_NAMED + 1}"  # noqa: S608 - constants
        rows = connection.exec_driver_sql(query).all()
        if rows:
            named = ", ".join(f"{row_id} (tenant {tenant_id})" for tenant_id, row_id in rows[:_NAMED])
            faults.append(f"{table}: {words}: {named}{' and more' if len(rows) > _NAMED else ''}")
    if faults:
        raise RowsRefused(
            "this version's ledger refuses rows of billing; nothing was changed. Correct them, then migrate again:\n"
            + "\n".join(faults)
        )


def _without(table: str, column: str, target: str, key: str) -> tuple[str, str]:
    """The condition of a row that names no row of `target`, and that in words."""
    same = f"other.tenant_id = {table}.tenant_id AND other.{key} = {table}.{column}"
    condition = f"{column} IS NOT NULL AND NOT EXISTS (SELECT FROM {target} AS other WHERE {same})"
    return condition, f"{column} names no row of {target}"


def _name(table: str, column: str) -> str:
    """The name of the key, which the tenant's own key must not share."""
    return f"fk_{table}_{column}"


def _execute(statements: str) -> None:
    """Runs one statement at a time: a prepared statement cannot hold several."""
    for statement in statements.split(";\n"):
        op.execute(statement)
