-- Postgres's state of the requests that Redis holds for ($2), and of all others of tenant $1 that it should hold for:
-- open ones, and those settled for a process that may only be suspended. Only those of the users $3, unless null.
WITH asked AS (
  SELECT id FROM unnest($2::uuid[]) AS known (id)
  UNION
  SELECT id FROM usage_requests WHERE tenant_id = $1 AND state = 'open'
  UNION
  SELECT id FROM usage_requests WHERE tenant_id = $1 AND hold_until IS NOT NULL AND hold_until > clock_timestamp()
)
SELECT r.id, r.user_id, r.state, r.state = 'open' OR coalesce(r.hold_until > clock_timestamp(), false) AS holds,
       r.held_prompt_tokens, r.held_output_tokens, r.held_nano_usd,
       coalesce(r.held_web_searches, 0) AS held_web_searches
  FROM asked
  JOIN usage_requests r ON r.tenant_id = $1 AND r.id = asked.id
 WHERE $3::uuid[] IS NULL OR r.user_id = ANY ($3)
