-- What Redis has to know of tenant $1, in one snapshot: what is used in the windows given, and every hold. Windows:
-- minutes from the id $2 on, days from $3 on, periods in $4. Of users: shadow_users.sql.
--
-- What holds: an open request; and a settled one whose process may only sleep (hold_until), whose hold counts in full
-- and in place of its counts: the rollup and the meters have them, so they are taken out again.
-- A minute has the entries on its requests, too; the rollup and the meters have them already.
-- One row a window or hold: kind 'm' (name = its minute), 'd', 'p' with the seven counts; 'h' with the hold.
WITH asleep AS MATERIALIZED (
  SELECT * FROM usage_requests
   WHERE tenant_id = $1 AND hold_until > statement_timestamp() AND state = 'settled'
), used AS (
  SELECT 'm' AS kind, floor(extract(epoch FROM opened_at) / 60)::bigint::text AS name, requests, input_tokens,
         output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd
    FROM usage_requests
   WHERE tenant_id = $1 AND id >= $2 AND state = 'settled'
     AND (hold_until IS NULL OR hold_until <= statement_timestamp())
  UNION ALL
  SELECT 'm', floor(extract(epoch FROM r.opened_at) / 60)::bigint::text, e.requests, e.input_tokens, e.output_tokens,
         e.cache_read_tokens, e.cache_write_5m_tokens, e.cache_write_1h_tokens, e.cost_nano_usd
    FROM usage_entries e
    JOIN usage_requests r ON r.tenant_id = e.tenant_id AND r.id = e.request_id
   WHERE e.tenant_id = $1 AND e.request_id >= $2 AND r.state = 'settled'
  UNION ALL
  SELECT 'd', day::text, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
         cache_write_1h_tokens, cost_nano_usd
    FROM usage_daily
   WHERE tenant_id = $1 AND day >= $3
  UNION ALL
  SELECT 'p', period_id, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
         cache_write_1h_tokens, cost_nano_usd
    FROM usage_meters
   WHERE tenant_id = $1 AND period_id = ANY ($4)
  UNION ALL
  SELECT w.kind, w.name, -requests, -input_tokens, -output_tokens, -cache_read_tokens, -cache_write_5m_tokens,
         -cache_write_1h_tokens, -cost_nano_usd
    FROM asleep
   CROSS JOIN LATERAL (VALUES ('d', day::text, day >= $3), ('p', period_id, period_id = ANY ($4)))
      AS w (kind, name, wanted)
   WHERE w.wanted
)
SELECT kind, name, NULL::uuid AS id, NULL::uuid AS user_id, sum(requests)::bigint AS requests,
       sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
       sum(cache_read_tokens)::bigint AS cache_read_tokens,
       sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
       sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd,
       NULL::bigint AS held_prompt_tokens, NULL::bigint AS held_output_tokens, NULL::bigint AS held_nano_usd,
       NULL::date AS day, NULL::text AS period_id, NULL::timestamptz AS deadline_at
  FROM used
 GROUP BY kind, name
UNION ALL
SELECT 'h', floor(extract(epoch FROM opened_at) / 60)::bigint::text, id, user_id, 1, 0, 0, 0, 0, 0, 0,
       held_prompt_tokens, held_output_tokens, held_nano_usd, day, period_id, deadline_at
  FROM usage_requests
 WHERE tenant_id = $1 AND state = 'open'
UNION ALL
SELECT 'h', floor(extract(epoch FROM opened_at) / 60)::bigint::text, id, user_id, 1, 0, 0, 0, 0, 0, 0,
       held_prompt_tokens, held_output_tokens, held_nano_usd, day, period_id, greatest(deadline_at, hold_until)
  FROM asleep
