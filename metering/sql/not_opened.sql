-- The reasons why requests were not opened, by tenant $1, key $2 and moment of the grant $3. Returns key_id;
-- key_is_good: whether the key was valid then (if so, the epoch had moved); fallback_s: for how many more seconds
-- Postgres admits the tenant, or null.
SELECT a.key_id,
       EXISTS (SELECT FROM api_keys k
                WHERE k.tenant_id = a.tenant_id AND k.id = a.key_id AND k.revoked_at IS NULL
                  AND (k.expires_at IS NULL OR k.expires_at > a.opened_at)) AS key_is_good,
       (SELECT extract(epoch FROM e.fallback_until - clock_timestamp())::float8
          FROM tenant_epochs e WHERE e.tenant_id = a.tenant_id) AS fallback_s
  FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS a (tenant_id, key_id, opened_at)
