-- Takes the tenant's lock for grants by Postgres. $2: this process cannot see Redis, so Postgres admits the tenant for
-- $3 seconds from now at least; where it did not already, the epoch moves, and what Redis granted and nobody has
-- opened yet bounces. Without $2 nothing changes: null in fallback_s means that Redis admits the tenant (again).
INSERT INTO tenant_epochs AS t (tenant_id, epoch, fallback_until)
VALUES ($1, 1, CASE WHEN $2 THEN clock_timestamp() + make_interval(secs => $3) END)
    ON CONFLICT (tenant_id) DO UPDATE
   SET epoch = t.epoch + CASE WHEN $2 AND t.fallback_until IS NULL THEN 1 ELSE 0 END,
       fallback_until = CASE WHEN $2 THEN greatest(t.fallback_until, clock_timestamp() + make_interval(secs => $3))
                             ELSE t.fallback_until END
RETURNING epoch, clock_timestamp() AS at, extract(epoch FROM fallback_until - clock_timestamp())::float8 AS fallback_s
