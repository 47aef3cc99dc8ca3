"""Lists over all tenants: an index by id alone of requests, entries and the audit log, and of a user's entries.

The tables may be large and in use, so their indexes are built beside the traffic, after the revisions, by
`migrations.indexes`; here is only what costs a moment: the index that the months' indexes are attached to.
"""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """It is not valid before the last month has its index; nothing that is asked needs it to be."""
    op.execute("CREATE INDEX IF NOT EXISTS ix_usage_requests_id ON ONLY usage_requests (id)")


def downgrade() -> None:
    """Takes the indexes away."""
    for index in ("ix_usage_requests_id", "ix_usage_entries_id", "ix_usage_entries_user", "ix_audit_log_id"):
        op.execute(f"DROP INDEX IF EXISTS {index}")
