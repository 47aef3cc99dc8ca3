"""A tenant's schedule: which period and which terms hold when, as billing projects it for admission."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Until billing says otherwise, a schedule is empty."""
    op.execute("ALTER TABLE entitlements ADD COLUMN schedule jsonb NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Takes the schedules away."""
    op.execute("ALTER TABLE entitlements DROP COLUMN schedule")
