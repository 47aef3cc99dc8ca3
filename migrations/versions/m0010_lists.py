"""Lists over all tenants: indexes on the id alone of requests, entries and the audit log, and on a user's entries.

The tables may be large and in use, so `migrations.indexes` builds the indexes during traffic, after the revisions. This
revision only creates the parent index, to which those of the months are attached.
"""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Creates the parent index. It is invalid until every month has its index; no query needs it to be valid."""
    op.execute("CREATE INDEX IF NOT EXISTS ix_usage_requests_id ON ONLY usage_requests (id)")


def downgrade() -> None:
    """Drops the indexes."""
    for index in ("ix_usage_requests_id", "ix_usage_entries_id", "ix_usage_entries_user", "ix_audit_log_id"):
        op.execute(f"DROP INDEX IF EXISTS {index}")
