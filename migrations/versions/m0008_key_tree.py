"""Keys created with keys, their last use, webhook deliveries identified by their body, and the erasure of a user."""

from alembic import op

revision = "0008"
down_revision = "0007"

_KEYS = """
ALTER TABLE api_keys ADD COLUMN parent_key_id uuid, ADD COLUMN predecessor_key_id uuid;
CREATE INDEX ix_api_keys_parent_key_id ON api_keys (parent_key_id) WHERE parent_key_id IS NOT NULL;
CREATE INDEX ix_api_keys_predecessor_key_id ON api_keys (predecessor_key_id) WHERE predecessor_key_id IS NOT NULL;
CREATE TABLE key_uses (
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    last_used_at timestamptz NOT NULL,
    CONSTRAINT pk_key_uses PRIMARY KEY (tenant_id, key_id)
);
"""
_WEBHOOKS = """
ALTER TABLE webhook_events ADD COLUMN body_sha256 bytea;
UPDATE webhook_events SET body_sha256 = sha256(body)
WHERE event_id IN (
    SELECT DISTINCT ON (sha256(body)) event_id FROM webhook_events ORDER BY sha256(body), received_ms, event_id
);
CREATE UNIQUE INDEX uq_webhook_events_body_sha256 ON webhook_events (body_sha256);
"""
_USERS = "ALTER TABLE users ADD COLUMN erased_at timestamptz"
_ERASE = """
CREATE FUNCTION erase_from_audit(whose_tenant uuid, whose uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    named text;
    keys uuid[];
    prefixes text[];
BEGIN
    SELECT external_id INTO named FROM users WHERE tenant_id = whose_tenant AND id = whose AND erased_at IS NOT NULL;
    IF named IS NULL THEN
        RAISE EXCEPTION 'only what is about an erased user is removed from the audit log';
    END IF;
    SELECT array_agg(id) INTO keys FROM api_keys WHERE tenant_id = whose_tenant AND user_id = whose;
    SELECT array_agg(DISTINCT entry.shown) INTO prefixes
    FROM audit_log AS a, LATERAL (VALUES (a.before ->> 'prefix'), (a.after ->> 'prefix')) AS entry (shown)
    WHERE a.tenant_id = whose_tenant AND a.target = ANY (SELECT 'key:' || k FROM unnest(keys) AS k)
        AND entry.shown <> 'erased';

    UPDATE audit_log AS a SET
        before = erased_details(a.before, named),
        after = erased_details(a.after, named)
    WHERE a.tenant_id = whose_tenant
        AND (a.target = 'user:' || whose OR a.target = ANY (SELECT 'key:' || k FROM unnest(keys) AS k));
    -- Whatever the person's keys did to others stays, but for where from.
    UPDATE audit_log AS a SET after = a.after - 'address'
    WHERE a.actor_key_id = ANY (keys) AND a.after ? 'address';
    -- Failed attempts name an address beside the prefix that was tried.
    UPDATE audit_log AS a SET target = 'address:erased', after = a.after - 'keys'
    WHERE a.action = 'key.refused' AND a.after -> 'keys' ?| prefixes;
END $$
"""
_DETAILS = """
CREATE FUNCTION erased_details(details jsonb, named text) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof(details) = 'object' THEN (details - 'address')
        || CASE WHEN details ? 'external_id' THEN jsonb_build_object('external_id', named) ELSE '{}' END
        || CASE WHEN details ? 'name' THEN '{"name": "erased"}'::jsonb ELSE '{}' END
        || CASE WHEN details ? 'prefix' THEN '{"prefix": "erased"}'::jsonb ELSE '{}' END
    ELSE details END  -- where there are none, SQLAlchemy writes the null of JSON
$$
"""
_TABLES = (_KEYS, _WEBHOOKS, _USERS)


def upgrade() -> None:
    """Leaves existing keys without a parent: their creator is only in the audit log.

    If a delivery was stored twice, under two ids, later deliveries are compared with the older one.
    """
    for step in _TABLES:
        for statement in filter(str.strip, step.split(";\n")):
            op.execute(statement)
    # The application may not change the audit log, except through this function, which accepts only a user that has
    # already been erased.
    op.execute(_DETAILS)
    op.execute(_ERASE)
    op.execute("REVOKE EXECUTE ON FUNCTION erase_from_audit(uuid, uuid) FROM PUBLIC")


def downgrade() -> None:
    """Drops the origin of derived keys; their scopes stay."""
    op.execute("DROP FUNCTION erase_from_audit(uuid, uuid)")
    op.execute("DROP FUNCTION erased_details(jsonb, text)")
    op.execute("ALTER TABLE users DROP COLUMN erased_at")
    op.execute("ALTER TABLE webhook_events DROP COLUMN body_sha256")
    op.execute("DROP TABLE key_uses")
    op.execute("ALTER TABLE api_keys DROP COLUMN predecessor_key_id, DROP COLUMN parent_key_id")
