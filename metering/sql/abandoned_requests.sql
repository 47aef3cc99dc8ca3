-- Locks and returns open requests of process $1 that it will not settle: all of them, or those in $2 (at most 500). A
-- request that is being settled at this moment is skipped: its own settlement is the better measurement.
SELECT tenant_id, id, user_id, price_id, model_asked, opened_at, held_output_tokens
  FROM usage_requests
 WHERE process_id = $1 AND state = 'open' AND ($2::uuid[] IS NULL OR id = ANY ($2))
 ORDER BY tenant_id, id
 LIMIT 500
   FOR UPDATE SKIP LOCKED
