-- The counters of users, many at once, by the rules of snapshot.sql.
--
-- $1-$4, an array each: the users' tenants, the users, the first id of their minutes' requests, their first day. $5,
-- $6: pairs of a user's number (from 1) and a period. Returns the rows of snapshot.sql with number and tenant_id: a
-- window names its user by number; a hold has no number and names its tenant and user, since holds are read once per
-- tenant.
WITH asked AS MATERIALIZED (
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::date[])
         WITH ORDINALITY AS a (tenant_id, user_id, from_id, from_day, number)
), named AS MATERIALIZED (
  SELECT * FROM unnest($5::bigint[], $6::text[]) AS p (number, period_id)
), tenants AS MATERIALIZED (
  SELECT DISTINCT tenant_id FROM asked
), holding AS MATERIALIZED (
  SELECT r.*
    FROM tenants t
   CROSS JOIN LATERAL (
     SELECT * FROM usage_requests WHERE tenant_id = t.tenant_id AND state = 'open' AND user_id = ANY ($2)
     UNION ALL
     SELECT * FROM usage_requests
      WHERE tenant_id = t.tenant_id AND hold_until > statement_timestamp() AND state = 'settled'
        AND user_id = ANY ($2)
   ) r
), used AS (
  SELECT a.number, u.*
    FROM asked a
   CROSS JOIN LATERAL (
     SELECT 'm' AS kind, floor(extract(epoch FROM opened_at) / 60)::bigint::text AS name, {counts}
       FROM usage_requests
      WHERE tenant_id = a.tenant_id AND user_id = a.user_id AND id >= a.from_id AND state = 'settled'
        AND (hold_until IS NULL OR hold_until <= statement_timestamp())
     UNION ALL
     SELECT 'm', floor(extract(epoch FROM r.opened_at) / 60)::bigint::text, {e.counts}
       FROM usage_requests r
       JOIN usage_entries e ON e.tenant_id = r.tenant_id AND e.request_id = r.id
      WHERE r.tenant_id = a.tenant_id AND r.user_id = a.user_id AND r.id >= a.from_id AND r.state = 'settled'
        AND (e.kind <> 'iteration' OR r.hold_until IS NULL OR r.hold_until <= statement_timestamp())
     UNION ALL
     SELECT 'd', day::text, {counts}
       FROM usage_daily
      WHERE tenant_id = a.tenant_id AND user_id = a.user_id AND day >= a.from_day
     UNION ALL
     SELECT 'p', split_part(period_id, '~', 1), {counts}
       FROM usage_daily
      WHERE tenant_id = a.tenant_id AND user_id = a.user_id
        AND split_part(period_id, '~', 1) = ANY (ARRAY(SELECT n.period_id FROM named n WHERE n.number = a.number))
   ) u
  UNION ALL
  SELECT a.number, w.kind, w.name, {s.negated}
    FROM (SELECT tenant_id, user_id, day, period_id, {counts} FROM holding WHERE state = 'settled'
           UNION ALL
          SELECT h.tenant_id, h.user_id, e.day, e.period_id, {e.counts}
            FROM holding h
            JOIN usage_entries e ON e.tenant_id = h.tenant_id AND e.request_id = h.id AND e.kind = 'iteration') AS s
    JOIN asked a ON a.tenant_id = s.tenant_id AND a.user_id = s.user_id
   CROSS JOIN LATERAL (
     VALUES ('d', s.day::text, s.day >= a.from_day),
            ('p', split_part(s.period_id, '~', 1),
             split_part(s.period_id, '~', 1) = ANY (ARRAY(SELECT n.period_id FROM named n WHERE n.number = a.number)))
   ) AS w (kind, name, wanted)
   WHERE w.wanted
)
SELECT kind, name, NULL::uuid AS id, NULL::uuid AS user_id, {sums},
       NULL::bigint AS held_prompt_tokens, NULL::bigint AS held_output_tokens, NULL::bigint AS held_nano_usd,
       NULL::bigint AS held_web_searches, NULL::date AS day, NULL::text AS period_id,
       NULL::timestamptz AS deadline_at, number, NULL::uuid AS tenant_id
  FROM used
 GROUP BY number, kind, name
UNION ALL
SELECT 'h', floor(extract(epoch FROM opened_at) / 60)::bigint::text, id, user_id, 1, 0, 0, 0, 0, 0, 0, 0, 0,
       held_prompt_tokens, held_output_tokens, held_nano_usd, coalesce(held_web_searches, 0), day, period_id,
       greatest(deadline_at, hold_until), NULL, tenant_id
  FROM holding
