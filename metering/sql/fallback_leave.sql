-- Locks the tenant ($1) for a rebuild in Redis, moves its epoch past every epoch seen ($2) and lets Redis admit it
-- again. Returns the epoch; no row, and no change, while Postgres admits the tenant.
INSERT INTO tenant_epochs AS t (tenant_id, epoch) VALUES ($1, $2::bigint + 1)
    ON CONFLICT (tenant_id) DO UPDATE SET epoch = greatest(t.epoch, $2::bigint) + 1, fallback_until = NULL
 WHERE t.fallback_until IS NULL OR t.fallback_until <= clock_timestamp()
RETURNING epoch
