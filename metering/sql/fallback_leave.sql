-- Takes the tenant's lock for a rebuild in Redis and moves its epoch past every epoch seen ($2): opens granted under an
-- older one bounce, and Redis admits the tenant (again). While it is in Postgres's hands there is no row, and nothing
-- moves.
INSERT INTO tenant_epochs AS t (tenant_id, epoch) VALUES ($1, $2::bigint + 1)
    ON CONFLICT (tenant_id) DO UPDATE SET epoch = greatest(t.epoch, $2::bigint) + 1, fallback_until = NULL
 WHERE t.fallback_until IS NULL OR t.fallback_until <= clock_timestamp()
RETURNING epoch
