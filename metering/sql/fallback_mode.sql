-- The tenant's epoch; and where Postgres admits the tenant, for how many seconds more at least (else null).
SELECT epoch, extract(epoch FROM fallback_until - clock_timestamp())::float8 AS fallback_s
  FROM tenant_epochs WHERE tenant_id = $1
