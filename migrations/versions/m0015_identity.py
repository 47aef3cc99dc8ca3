"""Identity and tags: users who act without a key of their own, issuers, members, invitations, tags and their rollup.

Only additions: the statements of older processes stay valid. They know no tags, so what one of them settles for a
request of a newer one is missing in `usage_by_tag` until `naka reconcile` adds it.
"""

from alembic import op

from migrations.versions.m0009_roles import detach_month
from migrations.versions.m0011_add_usage import function_of
from migrations.versions.m0012_thinking_and_searches import DETACHED_MONTHS, LOCK, NINE

revision = "0015"
down_revision = "0014"

TYPE = "naka_usage_0015"
_REPORTED = (*NINE, "errors")

_PEOPLE = """
ALTER TABLE tenants
    ADD COLUMN makes_users boolean DEFAULT true NOT NULL,
    ADD COLUMN new_users_per_minute integer DEFAULT 600 NOT NULL,
    ADD CONSTRAINT ck_tenants_new_users_per_minute CHECK (new_users_per_minute >= 0);
ALTER TABLE users ADD COLUMN disabled_at timestamp with time zone;
CREATE TABLE token_secrets (
    id text NOT NULL,
    secret bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    retired_at timestamp with time zone,
    CONSTRAINT pk_token_secrets PRIMARY KEY (id)
);
CREATE TABLE issuers (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    key_id uuid NOT NULL,
    issuer text NOT NULL,
    audience text NOT NULL,
    verification_keys text NOT NULL,
    user_claim text NOT NULL,
    tag_claims jsonb DEFAULT '{}' NOT NULL,
    scopes text[] NOT NULL,
    scopes_claim text,
    leeway_s integer DEFAULT 30 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    removed_at timestamp with time zone,
    CONSTRAINT pk_issuers PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_issuers_leeway_s CHECK (leeway_s BETWEEN 0 AND 300),
    CONSTRAINT fk_issuers_tenant_id_key_id FOREIGN KEY(tenant_id, key_id) REFERENCES api_keys (tenant_id, id)
);
CREATE UNIQUE INDEX uq_issuers_issuer_audience ON issuers (issuer, audience) WHERE removed_at IS NULL;
CREATE TABLE members (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    key_id uuid NOT NULL,
    email text NOT NULL,
    role text NOT NULL,
    oidc_issuer text,
    oidc_subject text,
    by_claim boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    removed_at timestamp with time zone,
    CONSTRAINT pk_members PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_members_role CHECK (role IN ('viewer', 'admin', 'owner', 'operator')),
    CONSTRAINT fk_members_tenant_id_key_id FOREIGN KEY(tenant_id, key_id) REFERENCES api_keys (tenant_id, id)
);
CREATE UNIQUE INDEX uq_members_tenant_id_email ON members (tenant_id, email) WHERE removed_at IS NULL;
CREATE INDEX ix_members_oidc_issuer_oidc_subject ON members (oidc_issuer, oidc_subject) WHERE removed_at IS NULL;
CREATE INDEX ix_members_email ON members (email) WHERE removed_at IS NULL AND oidc_subject IS NULL;
CREATE TABLE invitations (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    email text NOT NULL,
    role text NOT NULL,
    hash bytea NOT NULL,
    actor text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    accepted_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT pk_invitations PRIMARY KEY (tenant_id, id),
    CONSTRAINT ck_invitations_role CHECK (role IN ('viewer', 'admin', 'owner', 'operator')),
    CONSTRAINT fk_invitations_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE UNIQUE INDEX uq_invitations_hash ON invitations (hash)
"""
_COUNT_COLUMNS = ", ".join(f"{name} bigint DEFAULT 0 NOT NULL" for name in _REPORTED)
_TAGS = f"""
CREATE TABLE tag_keys (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    max_values integer DEFAULT 1000 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    removed_at timestamp with time zone,
    CONSTRAINT pk_tag_keys PRIMARY KEY (tenant_id, key),
    CONSTRAINT ck_tag_keys_max_values CHECK (max_values > 0),
    CONSTRAINT fk_tag_keys_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE TABLE tag_values (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    day date NOT NULL,
    value text NOT NULL,
    CONSTRAINT pk_tag_values PRIMARY KEY (tenant_id, key, day, value)
);
CREATE TABLE tag_limits (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    limits jsonb NOT NULL,
    CONSTRAINT pk_tag_limits PRIMARY KEY (tenant_id, key, value),
    CONSTRAINT fk_tag_limits_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (id)
);
CREATE TABLE usage_by_tag (
    tenant_id uuid NOT NULL,
    tag_key text NOT NULL,
    tag_value text NOT NULL,
    day date NOT NULL,
    period_id text NOT NULL,
    shard smallint NOT NULL,
    {_COUNT_COLUMNS},
    CONSTRAINT pk_usage_by_tag PRIMARY KEY (tenant_id, tag_key, tag_value, day, period_id, shard)
);
CREATE INDEX ix_usage_by_tag_tenant_id_day ON usage_by_tag (tenant_id, day);
CREATE TABLE usage_tag_checkpoints (
    tenant_id uuid NOT NULL,
    month date NOT NULL,
    tag_key text NOT NULL,
    tag_value text NOT NULL,
    day date NOT NULL,
    period_id text NOT NULL,
    {", ".join(f"{name} bigint DEFAULT 0 NOT NULL" for name in NINE)},
    CONSTRAINT pk_usage_tag_checkpoints PRIMARY KEY (tenant_id, month, tag_key, tag_value, day, period_id)
)
"""
_BEFORE_DETACHING = "  -- The lock stops admission"
_KEEP_TAGS = f"""\
  EXECUTE format('INSERT INTO public.usage_tag_checkpoints'
                 ' (tenant_id, month, tag_key, tag_value, day, period_id, {", ".join(NINE)})'
                 ' SELECT tenant_id, %1$L::date, tag_key, tag_value, day, period_id,'
                 '        {", ".join(f"sum({name})" for name in NINE)}'
                 '   FROM (SELECT r.tenant_id, t.key AS tag_key, r.tags ->> t.key AS tag_value, r.day, r.period_id,'
                 '                {", ".join(f"r.{name}" for name in NINE)}'
                 '           FROM public.%2$I r, unnest(r.tag_keys) AS t (key) WHERE r.state = ''settled'''
                 '          UNION ALL'
                 '         SELECT r.tenant_id, t.key, r.tags ->> t.key, e.day, e.period_id,'
                 '                {", ".join(f"e.{name}" for name in NINE)}'
                 '           FROM public.%2$I r'
                 '           JOIN public.usage_entries e ON e.tenant_id = r.tenant_id AND e.request_id = r.id,'
                 '                unnest(r.tag_keys) AS t (key)'
                 '          WHERE e.kind <> ''repair'') AS tagged'
                 '  WHERE tag_key <> ''nk:token'''
                 '  GROUP BY tenant_id, tag_key, tag_value, day, period_id', month, part);
"""  # noqa: S608 - column names of this package
"""Keeps the sums by tag of a month to be detached. Entries find their tags in the rows, so theirs are kept, too."""
_DROP_TOKENS = """\
  -- Tokens with a budget ended long ago. Their number has no bound, so they are neither kept nor compared any longer.
  DELETE FROM public.usage_by_tag t
   USING (SELECT DISTINCT c.tenant_id, c.day FROM public.usage_checkpoints c
           WHERE c.month = naka_detach_month.month) AS gone
   WHERE t.tenant_id = gone.tenant_id AND t.day = gone.day AND t.tag_key = 'nk:token';
"""
_VARIABLES = "  is_needed boolean;\n"
_ENTRY_VARIABLES = "  entries text;\n  entries_before bigint;\n  entries_after bigint;\n"
_COUNT_ENTRIES = """\
  -- Entries of about this time: by an index, since they are counted under the lock, too. Their ids are UUIDv7 of
  -- another clock, so an hour is allowed. Iterations are written with the settlement, and no row of the month is open.
  entries := format('SELECT count(*) FROM public.usage_entries e'
                    '  JOIN public.%I r ON r.tenant_id = e.tenant_id AND r.id = e.request_id'
                    ' WHERE e.id >= %L::uuid AND e.kind NOT IN (''repair'', ''iteration'')',
                    part, lpad(to_hex(greatest(at_ms - 3600000, 0)), 12, '0') || repeat('0', 20));
  EXECUTE entries INTO entries_before;
"""
_UNDER_LOCK = "  IF is_dropped THEN"
_COMPARE_ENTRIES = """\
  EXECUTE entries INTO entries_after;
  IF entries_after <> entries_before THEN
    RAISE object_in_use USING MESSAGE = 'a request in it was corrected meanwhile';
  END IF;
"""
"""An entry that was written after the sums is in `usage_by_tag`, but would be missing in the sums that are kept."""
_ERASE_TAGS = """
CREATE FUNCTION naka_erase_tags(whose_tenant uuid, whose uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  FOR attempt IN 1..5 LOOP
    BEGIN
      -- Tags that are added up stay: the rollup is compared with them. Nothing changes unless the user is marked as
      -- erased.
      UPDATE public.usage_requests r
         SET tags = (SELECT jsonb_object_agg(t.key, t.value) FROM jsonb_each(r.tags) AS t (key, value)
                      WHERE t.key = ANY (r.tag_keys) OR t.key LIKE 'nk:%')
       WHERE r.tenant_id = whose_tenant AND r.user_id = whose
         AND EXISTS (SELECT FROM jsonb_object_keys(r.tags) AS t (key)
                      WHERE t.key <> ALL (coalesce(r.tag_keys, '{}')) AND t.key NOT LIKE 'nk:%')
         AND EXISTS (SELECT FROM public.users u
                      WHERE u.tenant_id = whose_tenant AND u.id = whose AND u.erased_at IS NOT NULL);
      RETURN;
    EXCEPTION WHEN deadlock_detected THEN
      -- Settlements lock open rows of the user in another order. This block has let its own rows go; without the
      -- pause it would have them again before the settlement that waits for them wakes.
      IF attempt = 5 THEN
        RAISE;
      END IF;
      PERFORM pg_sleep(0.1 * attempt);
    END;
  END LOOP;
END
$$
"""
_ISSUER_OF_ANOTHER = """
CREATE FUNCTION naka_is_issuer_of_another(whose_tenant uuid, wanted text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
-- Also one that was removed: its tokens are signed as before. Row-level security hides these rows from a tenant.
SELECT EXISTS (SELECT FROM public.issuers i WHERE i.issuer = wanted AND i.tenant_id <> whose_tenant)
$$
"""
_NEW = (
    "usage_tag_checkpoints",
    "usage_by_tag",
    "tag_limits",
    "tag_values",
    "tag_keys",
    "invitations",
    "members",
    "issuers",
    "token_secrets",
)
_ADD = "ADD COLUMN tags jsonb, ADD COLUMN tag_keys text[]"
_DROP = "DROP COLUMN tags, DROP COLUMN tag_keys"
_OLD_COLUMNS = """
ALTER TABLE users DROP COLUMN disabled_at;
ALTER TABLE tenants
    DROP CONSTRAINT ck_tenants_new_users_per_minute,
    DROP COLUMN makes_users,
    DROP COLUMN new_users_per_minute
"""


def _type() -> str:
    counts = ", ".join(f"{name} bigint" for name in _REPORTED)
    return f"""
CREATE TYPE {TYPE} AS (
    tenant_id uuid, user_id uuid, day date, period_id text, key_id uuid, model text, {counts}, tags jsonb,
    tag_keys text[]
)
"""


def _by_tag() -> str:
    """The last step of the function: each element is added once for each of its rolled-up tags."""
    keys = ("tenant_id", "tag_key", "tag_value", "day", "period_id", "shard")
    sums = ", ".join(f"public.naka_sum({name})" for name in _REPORTED)
    moved = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in _REPORTED)
    return f"""
  IF 'usage_by_tag' = ANY (tables) THEN
    INSERT INTO public.usage_by_tag AS t ({", ".join((*keys, *_REPORTED))})
    SELECT tenant_id, tag.key, tags ->> tag.key, day, period_id, in_shard, {sums}
      FROM unnest(added) AS a, unnest(a.tag_keys) AS tag (key)
     GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
        ON CONFLICT ({", ".join(keys)}) DO UPDATE SET {moved};
  END IF;
END
$$
"""  # noqa: S608 - column names of this package


def _function() -> str:
    """`naka_add_usage` for elements with tags: as before, then `usage_by_tag`."""
    known = function_of(TYPE, NINE).replace("'usage_daily']", "'usage_daily', 'usage_by_tag']")
    return known.removesuffix("\nEND\n$$\n") + _by_tag()


def _detach_month() -> str:
    """`naka_detach_month` with the sums by tag."""
    before = _COUNT_ENTRIES + _KEEP_TAGS + _DROP_TOKENS + _BEFORE_DETACHING
    known = detach_month(NINE).replace(_VARIABLES, _VARIABLES + _ENTRY_VARIABLES)
    return known.replace(_BEFORE_DETACHING, before).replace(_UNDER_LOCK, _COMPARE_ENTRIES + _UNDER_LOCK)


def upgrade() -> None:
    """Adds tables, columns, and the overload of `naka_add_usage`."""
    op.execute(LOCK)
    op.execute("ALTER TABLE charges ADD COLUMN upi_link text")
    op.execute(DETACHED_MONTHS.replace("CHANGE", _ADD))
    op.execute(f"ALTER TABLE usage_requests {_ADD}")
    _execute(_PEOPLE)
    _execute(_TAGS)
    op.execute(_type())
    op.execute(_function())
    op.execute(_ERASE_TAGS)
    op.execute("REVOKE EXECUTE ON FUNCTION naka_erase_tags(uuid, uuid) FROM PUBLIC")
    op.execute(_ISSUER_OF_ANOTHER)
    op.execute("REVOKE EXECUTE ON FUNCTION naka_is_issuer_of_another(uuid, text) FROM PUBLIC")
    op.execute(_detach_month())


def downgrade() -> None:
    """Drops everything again."""
    op.execute(LOCK)
    op.execute("DROP FUNCTION naka_is_issuer_of_another(uuid, text)")
    op.execute("DROP FUNCTION naka_erase_tags(uuid, uuid)")
    op.execute(detach_month(NINE))
    op.execute(f"DROP FUNCTION naka_add_usage({TYPE}[], smallint, text[])")
    op.execute(f"DROP TYPE {TYPE}")
    for table in _NEW:
        op.execute(f"DROP TABLE {table}")
    _execute(_OLD_COLUMNS)
    op.execute("ALTER TABLE charges DROP COLUMN upi_link")
    op.execute(DETACHED_MONTHS.replace("CHANGE", _DROP))
    op.execute(f"ALTER TABLE usage_requests {_DROP}")


def _execute(statements: str) -> None:
    """Runs one statement at a time: a prepared statement cannot hold several."""
    for statement in statements.split(";\n"):
        op.execute(statement)
