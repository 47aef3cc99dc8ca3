-- The counters of tenant $1, in one snapshot: the usage of its windows, and every hold.
--
-- $2: the first id of the minutes' requests. $3: the first day. $4: the periods, each with all its segments (2026-11~2). Returns a row per window, of kind 'm'
-- (name: its minute), 'd' or 'p', with the counts; and a row per hold, of kind 'h'.
-- A request holds while it is open; and until hold_until when it was settled for a process that may only be suspended.
-- The rollup and the meters already count such a request and its iterations, so their counts are subtracted while its
-- hold counts in full.
-- A process of an older version opens without held_web_searches: it asks for none.
-- A minute is the sum of requests and of entries on them; the rollup and the meters include both.
WITH holding AS MATERIALIZED (
  SELECT * FROM usage_requests WHERE tenant_id = $1 AND state = 'open'
  UNION ALL
  SELECT * FROM usage_requests
   WHERE tenant_id = $1 AND hold_until > statement_timestamp() AND state = 'settled'
), used AS (
  SELECT 'm' AS kind, floor(extract(epoch FROM opened_at) / 60)::bigint::text AS name, {counts}
    FROM usage_requests
   WHERE tenant_id = $1 AND id >= $2 AND state = 'settled'
     AND (hold_until IS NULL OR hold_until <= statement_timestamp())
  UNION ALL
  SELECT 'm', floor(extract(epoch FROM r.opened_at) / 60)::bigint::text, {e.counts}
    FROM usage_entries e
    JOIN usage_requests r ON r.tenant_id = e.tenant_id AND r.id = e.request_id
   WHERE e.tenant_id = $1 AND e.request_id >= $2 AND r.state = 'settled'
     AND (e.kind <> 'iteration' OR r.hold_until IS NULL OR r.hold_until <= statement_timestamp())
  UNION ALL
  SELECT 'd', day::text, {counts}
    FROM usage_daily
   WHERE tenant_id = $1 AND day >= $3
  UNION ALL
  SELECT 'p', split_part(period_id, '~', 1), {counts}
    FROM usage_meters
   WHERE tenant_id = $1 AND split_part(period_id, '~', 1) = ANY ($4)
  UNION ALL
  SELECT w.kind, w.name, {s.negated}
    FROM (SELECT day, period_id, {counts} FROM holding WHERE state = 'settled'
           UNION ALL
          SELECT e.day, e.period_id, {e.counts}
            FROM holding h
            JOIN usage_entries e ON e.tenant_id = h.tenant_id AND e.request_id = h.id AND e.kind = 'iteration') AS s
   CROSS JOIN LATERAL (VALUES ('d', s.day::text, s.day >= $3),
                              ('p', split_part(s.period_id, '~', 1), split_part(s.period_id, '~', 1) = ANY ($4)))
      AS w (kind, name, wanted)
   WHERE w.wanted
)
SELECT kind, name, NULL::uuid AS id, NULL::uuid AS user_id, {sums},
       NULL::bigint AS held_prompt_tokens, NULL::bigint AS held_output_tokens, NULL::bigint AS held_nano_usd,
       NULL::bigint AS held_web_searches, NULL::date AS day, NULL::text AS period_id, NULL::timestamptz AS deadline_at
  FROM used
 GROUP BY kind, name
UNION ALL
SELECT 'h', floor(extract(epoch FROM opened_at) / 60)::bigint::text, id, user_id, 1, 0, 0, 0, 0, 0, 0, 0, 0,
       held_prompt_tokens, held_output_tokens, held_nano_usd, coalesce(held_web_searches, 0), day, period_id,
       greatest(deadline_at, hold_until)
  FROM holding
