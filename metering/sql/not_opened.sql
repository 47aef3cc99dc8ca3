-- The reasons why requests were not opened, by tenant $1, key $2, user $3 and moment of the grant $4. Returns key_id and
-- user_id; key_is_good: whether the key was valid then; user_is_good: whether neither the user nor the key's owner is
-- disabled or erased (if both, the epoch had moved); fallback_s: for how many more seconds Postgres admits the tenant, or null.
SELECT a.key_id, a.user_id,
       EXISTS (SELECT FROM api_keys k
                WHERE k.tenant_id = a.tenant_id AND k.id = a.key_id AND k.revoked_at IS NULL
                  AND (k.user_id = a.user_id OR 'chat:as-user' = ANY (k.scopes))
                  AND (k.expires_at IS NULL OR k.expires_at > a.opened_at)) AS key_is_good,
       EXISTS (SELECT FROM users u
                WHERE u.tenant_id = a.tenant_id AND u.id = a.user_id AND u.disabled_at IS NULL
                  AND u.erased_at IS NULL)
       AND EXISTS (SELECT FROM api_keys k JOIN users o ON o.tenant_id = k.tenant_id AND o.id = k.user_id
                    WHERE k.tenant_id = a.tenant_id AND k.id = a.key_id AND o.disabled_at IS NULL
                      AND o.erased_at IS NULL) AS user_is_good,
       (SELECT extract(epoch FROM e.fallback_until - clock_timestamp())::float8
          FROM tenant_epochs e WHERE e.tenant_id = a.tenant_id) AS fallback_s
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS a (tenant_id, key_id, user_id, opened_at)
