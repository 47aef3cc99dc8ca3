-- What Redis has to know of a tenant ($2 null) or of one of its users ($2), in one snapshot: what is used in the
-- windows given, and every open request. Windows: minutes from the id $3 on, days from $4 on, periods in $5.
--
-- One row a window or hold: kind 'm' (name = its minute), 'd', 'p' with the seven counts; 'h' with the hold.
WITH recent AS (
  SELECT * FROM usage_requests
   WHERE tenant_id = $1 AND id >= $3 AND state = 'settled' AND ($2::uuid IS NULL OR user_id = $2)
)
SELECT 'm' AS kind, floor(extract(epoch FROM opened_at) / 60)::bigint::text AS name, NULL::uuid AS id,
       NULL::uuid AS user_id, sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
       sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
       sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
       sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd,
       NULL::bigint AS held_prompt_tokens, NULL::bigint AS held_output_tokens, NULL::bigint AS held_nano_usd,
       NULL::date AS day, NULL::text AS period_id, NULL::timestamptz AS deadline_at
  FROM recent
 GROUP BY 2
UNION ALL
SELECT 'd', day::text, NULL, NULL, sum(requests)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint,
       sum(cache_read_tokens)::bigint, sum(cache_write_5m_tokens)::bigint, sum(cache_write_1h_tokens)::bigint,
       sum(cost_nano_usd)::bigint, NULL, NULL, NULL, NULL, NULL, NULL
  FROM usage_daily
 WHERE tenant_id = $1 AND day >= $4 AND ($2::uuid IS NULL OR user_id = $2)
 GROUP BY 2
UNION ALL
SELECT 'p', period_id, NULL, NULL, sum(requests)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint,
       sum(cache_read_tokens)::bigint, sum(cache_write_5m_tokens)::bigint, sum(cache_write_1h_tokens)::bigint,
       sum(cost_nano_usd)::bigint, NULL, NULL, NULL, NULL, NULL, NULL
  FROM usage_meters
 WHERE tenant_id = $1 AND period_id = ANY ($5) AND $2::uuid IS NULL
 GROUP BY 2
UNION ALL
SELECT 'p', period_id, NULL, NULL, sum(requests)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint,
       sum(cache_read_tokens)::bigint, sum(cache_write_5m_tokens)::bigint, sum(cache_write_1h_tokens)::bigint,
       sum(cost_nano_usd)::bigint, NULL, NULL, NULL, NULL, NULL, NULL
  FROM usage_daily
 WHERE tenant_id = $1 AND user_id = $2 AND period_id = ANY ($5)
 GROUP BY 2
UNION ALL
SELECT 'h', floor(extract(epoch FROM opened_at) / 60)::bigint::text, id, user_id, 1, 0, 0, 0, 0, 0, 0,
       held_prompt_tokens, held_output_tokens, held_nano_usd, day, period_id, deadline_at
  FROM usage_requests
 WHERE tenant_id = $1 AND state = 'open' AND ($2::uuid IS NULL OR user_id = $2)
