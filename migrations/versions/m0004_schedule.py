"""The schedule of a tenant: its periods and their terms, as billing projects them for admission."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the column; a schedule is empty until billing writes it."""
    op.execute("ALTER TABLE entitlements ADD COLUMN schedule jsonb NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drops the column."""
    op.execute("ALTER TABLE entitlements DROP COLUMN schedule")
