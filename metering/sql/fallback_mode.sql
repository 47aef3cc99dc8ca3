-- The epoch of tenant $1, and for how many more seconds Postgres admits it (fallback_s; null: Redis does).
SELECT epoch, extract(epoch FROM fallback_until - clock_timestamp())::float8 AS fallback_s
  FROM tenant_epochs WHERE tenant_id = $1
