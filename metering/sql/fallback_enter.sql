-- Locks the tenant ($1) for grants by Postgres. If $2 (this process cannot reach Redis), Postgres admits the tenant for
-- at least $3 seconds from now; if it did not before, the epoch moves, so that grants of Redis that are not opened yet
-- are refused. Otherwise nothing changes. Returns epoch, at, fallback_s: null if Redis admits the tenant.
INSERT INTO tenant_epochs AS t (tenant_id, epoch, fallback_until)
VALUES ($1, 1, CASE WHEN $2 THEN clock_timestamp() + make_interval(secs => $3) END)
    ON CONFLICT (tenant_id) DO UPDATE
   SET epoch = t.epoch + CASE WHEN $2 AND t.fallback_until IS NULL THEN 1 ELSE 0 END,
       fallback_until = CASE WHEN $2 THEN greatest(t.fallback_until, clock_timestamp() + make_interval(secs => $3))
                             ELSE t.fallback_until END
RETURNING epoch, clock_timestamp() AS at, extract(epoch FROM fallback_until - clock_timestamp())::float8 AS fallback_s
