-- Makes requests impossible that Postgres may not know: a void row with the id, unless the id is there already (an
-- insert of it that still runs is waited for). Follow it with states.sql: the row that stands is the answer.
INSERT INTO usage_requests (tenant_id, id, user_id, state, outcome, settled_at)
SELECT a.tenant_id, a.id, a.user_id, 'void', 'not_opened', clock_timestamp()
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS a (tenant_id, id, user_id)
    ON CONFLICT (tenant_id, id) DO NOTHING
