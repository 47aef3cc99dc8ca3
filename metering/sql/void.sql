-- Inserts a void row for each request ($1 tenants, $2 ids, $3 users) that has no row, so that it can never be opened.
-- An insert that still runs is waited for. request_states.sql then returns the row that stands.
INSERT INTO usage_requests (tenant_id, id, user_id, state, outcome, settled_at)
SELECT a.tenant_id, a.id, a.user_id, 'void', 'not_opened', clock_timestamp()
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS a (tenant_id, id, user_id)
    ON CONFLICT (tenant_id, id) DO NOTHING
