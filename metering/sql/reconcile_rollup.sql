-- Where the rollups differ from the rows and entries, in one snapshot: tenant $1, days from $2 until $3 (not included),
-- whose requests have ids from $4 until $5; at most $6 keys. A request is an error by its own outcome ($7).
--
-- $2 is the first of a month. A key of `usage_monthly` has that day, one of `usage_by_day` no user and no key of an API.
-- A difference is one settlement never makes: it moves row and rollups in one transaction. All zero is as good as none.
WITH expected AS MATERIALIZED (
  SELECT user_id, day, period_id, key_id, model,
         sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
         sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
         sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
         sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd,
         sum(errors)::bigint AS errors
    FROM (
      SELECT user_id, day, period_id, key_id, model,
             requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd, (outcome = ANY ($7::text[]))::integer AS errors
        FROM usage_requests
       WHERE tenant_id = $1 AND id >= $4 AND id < $5 AND state = 'settled' AND day >= $2 AND day < $3
      UNION ALL
      SELECT user_id, day, period_id,
             coalesce(key_id, '00000000-0000-0000-0000-000000000000'::uuid), coalesce(model, ''),
             requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd, 0
        FROM usage_entries
       WHERE tenant_id = $1 AND kind <> 'repair' AND day >= $2 AND day < $3
    ) AS measured
   GROUP BY user_id, day, period_id, key_id, model
), compared AS (
  SELECT 'usage_daily' AS rollup, user_id, day, period_id, key_id, model,
         ARRAY[coalesce(e.requests, 0), coalesce(e.input_tokens, 0), coalesce(e.output_tokens, 0),
             coalesce(e.cache_read_tokens, 0), coalesce(e.cache_write_5m_tokens, 0),
             coalesce(e.cache_write_1h_tokens, 0), coalesce(e.cost_nano_usd, 0), coalesce(e.errors, 0)] AS expected,
         ARRAY[coalesce(a.requests, 0), coalesce(a.input_tokens, 0), coalesce(a.output_tokens, 0),
             coalesce(a.cache_read_tokens, 0), coalesce(a.cache_write_5m_tokens, 0),
             coalesce(a.cache_write_1h_tokens, 0), coalesce(a.cost_nano_usd, 0), coalesce(a.errors, 0)] AS actual
    FROM (SELECT * FROM expected) AS e
    FULL JOIN (SELECT * FROM usage_daily WHERE tenant_id = $1 AND day >= $2 AND day < $3) AS a
   USING (user_id, day, period_id, key_id, model)
  UNION ALL
  SELECT 'usage_monthly' AS rollup, user_id, $2::date, period_id, key_id, model,
         ARRAY[coalesce(e.requests, 0), coalesce(e.input_tokens, 0), coalesce(e.output_tokens, 0),
             coalesce(e.cache_read_tokens, 0), coalesce(e.cache_write_5m_tokens, 0),
             coalesce(e.cache_write_1h_tokens, 0), coalesce(e.cost_nano_usd, 0), coalesce(e.errors, 0)] AS expected,
         ARRAY[coalesce(a.requests, 0), coalesce(a.input_tokens, 0), coalesce(a.output_tokens, 0),
             coalesce(a.cache_read_tokens, 0), coalesce(a.cache_write_5m_tokens, 0),
             coalesce(a.cache_write_1h_tokens, 0), coalesce(a.cost_nano_usd, 0), coalesce(a.errors, 0)] AS actual
    FROM (
      SELECT user_id, period_id, key_id, model,
             sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
             sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
             sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
             sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd,
             sum(errors)::bigint AS errors
        FROM expected
       GROUP BY user_id, period_id, key_id, model
    ) AS e
    FULL JOIN (SELECT * FROM usage_monthly WHERE tenant_id = $1 AND month = $2) AS a
   USING (user_id, period_id, key_id, model)
  UNION ALL
  SELECT 'usage_by_day' AS rollup, NULL, day, period_id, NULL, model,
         ARRAY[coalesce(e.requests, 0), coalesce(e.input_tokens, 0), coalesce(e.output_tokens, 0),
             coalesce(e.cache_read_tokens, 0), coalesce(e.cache_write_5m_tokens, 0),
             coalesce(e.cache_write_1h_tokens, 0), coalesce(e.cost_nano_usd, 0), coalesce(e.errors, 0)] AS expected,
         ARRAY[coalesce(a.requests, 0), coalesce(a.input_tokens, 0), coalesce(a.output_tokens, 0),
             coalesce(a.cache_read_tokens, 0), coalesce(a.cache_write_5m_tokens, 0),
             coalesce(a.cache_write_1h_tokens, 0), coalesce(a.cost_nano_usd, 0), coalesce(a.errors, 0)] AS actual
    FROM (
      SELECT day, period_id, model,
             sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
             sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
             sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
             sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd,
             sum(errors)::bigint AS errors
        FROM expected
       GROUP BY day, period_id, model
    ) AS e
    FULL JOIN (
      SELECT day, period_id, model,
             sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
             sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
             sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
             sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd,
             sum(errors)::bigint AS errors
        FROM usage_by_day
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id, model
    ) AS a
   USING (day, period_id, model)
)
SELECT *, count(*) OVER () AS found
  FROM compared
 WHERE expected <> actual
 ORDER BY rollup, user_id, day, period_id, key_id, model
 LIMIT $6
