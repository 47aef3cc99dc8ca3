-- The same as shadow.sql for users: $1 their tenants, $2 the users, $3 the ids from which minutes count, $4 the days
-- from which days count; $6 the periods, each of the user whose number is beside it in $5 (from 1).
--
-- A row of a window names its user by number. Holds have none: they are those of all the tenants' users in $2, found
-- once for a tenant and not once for a user, and tell their tenant and their user.
WITH asked AS MATERIALIZED (
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::date[])
         WITH ORDINALITY AS a (tenant_id, user_id, from_id, from_day, number)
), named AS MATERIALIZED (
  SELECT * FROM unnest($5::bigint[], $6::text[]) AS p (number, period_id)
), tenants AS MATERIALIZED (
  SELECT DISTINCT tenant_id FROM asked
), asleep AS MATERIALIZED (
  SELECT r.*
    FROM tenants t
   CROSS JOIN LATERAL (
     SELECT * FROM usage_requests
      WHERE tenant_id = t.tenant_id AND hold_until > statement_timestamp() AND state = 'settled'
        AND user_id = ANY ($2)
   ) r
), used AS (
  SELECT a.number, u.*
    FROM asked a
   CROSS JOIN LATERAL (
     SELECT 'm' AS kind, floor(extract(epoch FROM opened_at) / 60)::bigint::text AS name, requests, input_tokens,
            output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd
       FROM usage_requests
      WHERE tenant_id = a.tenant_id AND user_id = a.user_id AND id >= a.from_id AND state = 'settled'
        AND (hold_until IS NULL OR hold_until <= statement_timestamp())
     UNION ALL
     SELECT 'm', floor(extract(epoch FROM r.opened_at) / 60)::bigint::text, e.requests, e.input_tokens,
            e.output_tokens, e.cache_read_tokens, e.cache_write_5m_tokens, e.cache_write_1h_tokens, e.cost_nano_usd
       FROM usage_requests r
       JOIN usage_entries e ON e.tenant_id = r.tenant_id AND e.request_id = r.id
      WHERE r.tenant_id = a.tenant_id AND r.user_id = a.user_id AND r.id >= a.from_id AND r.state = 'settled'
     UNION ALL
     SELECT 'd', day::text, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
            cache_write_1h_tokens, cost_nano_usd
       FROM usage_daily
      WHERE tenant_id = a.tenant_id AND user_id = a.user_id AND day >= a.from_day
     UNION ALL
     SELECT 'p', period_id, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
            cache_write_1h_tokens, cost_nano_usd
       FROM usage_daily
      WHERE tenant_id = a.tenant_id AND user_id = a.user_id
        AND period_id = ANY (ARRAY(SELECT n.period_id FROM named n WHERE n.number = a.number))
   ) u
  UNION ALL
  SELECT a.number, w.kind, w.name, -s.requests, -s.input_tokens, -s.output_tokens, -s.cache_read_tokens,
         -s.cache_write_5m_tokens, -s.cache_write_1h_tokens, -s.cost_nano_usd
    FROM asleep s
    JOIN asked a ON a.tenant_id = s.tenant_id AND a.user_id = s.user_id
   CROSS JOIN LATERAL (
     VALUES ('d', s.day::text, s.day >= a.from_day),
            ('p', s.period_id,
             s.period_id = ANY (ARRAY(SELECT n.period_id FROM named n WHERE n.number = a.number)))
   ) AS w (kind, name, wanted)
   WHERE w.wanted
)
SELECT kind, name, NULL::uuid AS id, NULL::uuid AS user_id, sum(requests)::bigint AS requests,
       sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
       sum(cache_read_tokens)::bigint AS cache_read_tokens,
       sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
       sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd,
       NULL::bigint AS held_prompt_tokens, NULL::bigint AS held_output_tokens, NULL::bigint AS held_nano_usd,
       NULL::date AS day, NULL::text AS period_id, NULL::timestamptz AS deadline_at, number, NULL::uuid AS tenant_id
  FROM used
 GROUP BY number, kind, name
UNION ALL
SELECT 'h', floor(extract(epoch FROM r.opened_at) / 60)::bigint::text, r.id, r.user_id, 1, 0, 0, 0, 0, 0, 0,
       r.held_prompt_tokens, r.held_output_tokens, r.held_nano_usd, r.day, r.period_id, r.deadline_at, NULL,
       r.tenant_id
  FROM tenants t
 CROSS JOIN LATERAL (
   SELECT * FROM usage_requests WHERE tenant_id = t.tenant_id AND state = 'open' AND user_id = ANY ($2)
 ) r
UNION ALL
SELECT 'h', floor(extract(epoch FROM opened_at) / 60)::bigint::text, id, user_id, 1, 0, 0, 0, 0, 0, 0,
       held_prompt_tokens, held_output_tokens, held_nano_usd, day, period_id, greatest(deadline_at, hold_until), NULL,
       tenant_id
  FROM asleep
