-- Why requests were not opened: whether the key of each is still good ($3 the moment of the grant). If it is, the
-- epoch had moved; and where Postgres admits the tenant, for how many seconds more at least (else null).
SELECT a.key_id,
       EXISTS (SELECT FROM api_keys k
                WHERE k.tenant_id = a.tenant_id AND k.id = a.key_id AND k.revoked_at IS NULL
                  AND (k.expires_at IS NULL OR k.expires_at > a.opened_at)) AS key_is_good,
       (SELECT extract(epoch FROM e.fallback_until - clock_timestamp())::float8
          FROM tenant_epochs e WHERE e.tenant_id = a.tenant_id) AS fallback_s
  FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS a (tenant_id, key_id, opened_at)
