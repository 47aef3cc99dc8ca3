-- Open requests of a process ($1) that nobody is going to settle, locked; all of them, or those in $2.
-- One that is being settled right now is left out: its own settlement is the better one.
SELECT tenant_id, id, user_id, price_id, model_asked, opened_at, held_output_tokens
  FROM usage_requests
 WHERE process_id = $1 AND state = 'open' AND ($2::uuid[] IS NULL OR id = ANY ($2))
 ORDER BY tenant_id, id
 LIMIT 500
   FOR UPDATE SKIP LOCKED
