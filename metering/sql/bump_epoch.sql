-- Locks the tenant ($1) and moves its epoch past every epoch seen ($2): requests granted under an older one are not
-- opened. Returns the epoch.
INSERT INTO tenant_epochs AS t (tenant_id, epoch) VALUES ($1, $2::bigint + 1)
    ON CONFLICT (tenant_id) DO UPDATE SET epoch = greatest(t.epoch, $2::bigint) + 1
RETURNING epoch
