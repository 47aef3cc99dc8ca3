-- What the requests with a tag used and hold in a window, by the rules of snapshot.sql.
--
-- $1-$3, an array each: tenants, keys and values of tags. $4: kinds of windows ('minute', 'day', 'period', 'life'), $5:
-- their names ('' for a life), $6: the first id of a minute's requests, $7: the first day that may have usage. Returns a
-- row for each element, by its number from 1: the counts, and what is held.
-- A request holds while it is open, and until hold_until when it was settled for a process that may only be suspended;
-- the rollup already counts such a request and its iterations, so their counts are subtracted.
WITH asked AS MATERIALIZED (
  SELECT *
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::date[])
         WITH ORDINALITY AS a (tenant_id, key, value, kind, name, from_id, from_day, number)
), holding AS MATERIALIZED (
  SELECT a.number, a.kind, r.*
    FROM (SELECT DISTINCT tenant_id FROM asked) t
   CROSS JOIN LATERAL (
     SELECT * FROM usage_requests
      WHERE tenant_id = t.tenant_id AND state = 'open' AND tag_keys IS NOT NULL
     UNION ALL
     SELECT * FROM usage_requests
      WHERE tenant_id = t.tenant_id AND hold_until > statement_timestamp() AND state = 'settled'
        AND tag_keys IS NOT NULL
   ) r
    JOIN asked a ON a.tenant_id = r.tenant_id AND a.key = ANY (r.tag_keys) AND a.value = r.tags ->> a.key
     AND a.name = CASE a.kind WHEN 'minute' THEN floor(extract(epoch FROM r.opened_at) / 60)::bigint::text
                              WHEN 'day' THEN r.day::text
                              WHEN 'period' THEN split_part(r.period_id, '~', 1)
                              ELSE '' END
), used AS (
  SELECT a.number, u.*
    FROM asked a
   CROSS JOIN LATERAL (
     SELECT {counts}
       FROM usage_by_tag
      WHERE tenant_id = a.tenant_id AND tag_key = a.key AND tag_value = a.value AND day >= a.from_day
        AND CASE a.kind WHEN 'day' THEN day = a.from_day
                        WHEN 'period' THEN split_part(period_id, '~', 1) = a.name
                        ELSE a.kind = 'life' END
     UNION ALL
     SELECT {counts}
       FROM usage_requests
      WHERE a.kind = 'minute' AND tenant_id = a.tenant_id AND id >= a.from_id AND state = 'settled'
        AND (hold_until IS NULL OR hold_until <= statement_timestamp())
        AND floor(extract(epoch FROM opened_at) / 60)::bigint::text = a.name
        AND tags ->> a.key = a.value AND a.key = ANY (tag_keys)
     UNION ALL
     SELECT {e.counts}
       FROM usage_requests r
       JOIN usage_entries e ON e.tenant_id = r.tenant_id AND e.request_id = r.id
      WHERE a.kind = 'minute' AND r.tenant_id = a.tenant_id AND r.id >= a.from_id AND r.state = 'settled'
        AND (e.kind <> 'iteration' OR r.hold_until IS NULL OR r.hold_until <= statement_timestamp())
        AND floor(extract(epoch FROM r.opened_at) / 60)::bigint::text = a.name
        AND r.tags ->> a.key = a.value AND a.key = ANY (r.tag_keys)
   ) u
  UNION ALL
  SELECT number, {h.negated} FROM holding h WHERE state = 'settled' AND kind <> 'minute'
  UNION ALL
  SELECT h.number, {e.negated}
    FROM holding h
    JOIN usage_entries e ON e.tenant_id = h.tenant_id AND e.request_id = h.id AND e.kind = 'iteration'
   WHERE h.state = 'settled' AND h.kind <> 'minute'
  UNION ALL
  SELECT number, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM asked
), held AS (
  SELECT number, count(*) AS held_requests, sum(held_prompt_tokens)::bigint AS held_prompt,
         sum(held_output_tokens)::bigint AS held_output,
         sum(coalesce(held_web_searches, 0))::bigint AS held_web_searches,
         sum(held_nano_usd)::bigint AS held_nano_usd
    FROM holding
   GROUP BY number
), totals AS (
  SELECT number, {sums} FROM used GROUP BY number
)
SELECT t.number, {t.counts}, coalesce(h.held_requests, 0) AS held_requests,
       coalesce(h.held_prompt, 0) AS held_prompt, coalesce(h.held_output, 0) AS held_output,
       coalesce(h.held_web_searches, 0) AS held_web_searches, coalesce(h.held_nano_usd, 0) AS held_nano_usd
  FROM totals t
  LEFT JOIN held h ON h.number = t.number
