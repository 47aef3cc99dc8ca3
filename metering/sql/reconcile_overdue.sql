-- Requests of tenant $1 that nobody settled: still open $2 after their deadline; at most $3 of them.
SELECT id, user_id, held_prompt_tokens, held_output_tokens, held_nano_usd, count(*) OVER () AS found
  FROM usage_requests
 WHERE tenant_id = $1 AND state = 'open' AND deadline_at < clock_timestamp() - $2::interval
 ORDER BY id
 LIMIT $3
