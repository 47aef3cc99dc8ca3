"""Browser sessions: an opaque token in exchange for an API key."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Creates the table. A session references its key, which may be revoked and is never deleted."""
    op.execute("""
        CREATE TABLE web_sessions (
            tenant_id uuid NOT NULL,
            id uuid NOT NULL,
            key_id uuid NOT NULL,
            hash bytea NOT NULL,
            created_at timestamptz DEFAULT now() NOT NULL,
            expires_at timestamptz NOT NULL,
            ended_at timestamptz,
            CONSTRAINT pk_web_sessions PRIMARY KEY (tenant_id, id),
            CONSTRAINT fk_web_sessions_tenant_id_key_id
                FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys (tenant_id, id)
        )
    """)
    op.execute("CREATE INDEX ix_web_sessions_hash ON web_sessions (hash)")


def downgrade() -> None:
    """Drops the table, which signs everybody out."""
    op.execute("DROP TABLE web_sessions")
