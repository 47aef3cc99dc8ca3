-- Requests of tenant $1 that were never settled: still open $2 after their deadline. Returns at most $3, and found: how
-- many there are.
SELECT id, user_id, held_prompt_tokens, held_output_tokens, held_nano_usd,
       coalesce(held_web_searches, 0) AS held_web_searches, count(*) OVER () AS found
  FROM usage_requests
 WHERE tenant_id = $1 AND state = 'open' AND deadline_at < clock_timestamp() - $2::interval
 ORDER BY id
 LIMIT $3
