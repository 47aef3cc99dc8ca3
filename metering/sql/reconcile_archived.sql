-- The same for a month of which rows were detached: their sums are kept by day and period, so that is what is compared.
-- Tenant $1, days from $2 until $3 (not included), ids from $4 until $5, at most $6 differences; `usage_monthly` by period.
WITH expected AS MATERIALIZED (
  SELECT day, period_id,
         sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
         sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
         sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
         sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd
    FROM (
      SELECT day, period_id,
             requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd
        FROM usage_requests
       WHERE tenant_id = $1 AND id >= $4 AND id < $5 AND state = 'settled' AND day >= $2 AND day < $3
      UNION ALL
      SELECT day, period_id,
             requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd
        FROM usage_checkpoints
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
      UNION ALL
      SELECT day, period_id,
             requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd
        FROM usage_entries
       WHERE tenant_id = $1 AND kind <> 'repair' AND day >= $2 AND day < $3
    ) AS measured
   GROUP BY day, period_id
), compared AS (
  SELECT 'usage_daily' AS rollup, day, period_id,
         ARRAY[coalesce(e.requests, 0), coalesce(e.input_tokens, 0), coalesce(e.output_tokens, 0),
             coalesce(e.cache_read_tokens, 0), coalesce(e.cache_write_5m_tokens, 0),
             coalesce(e.cache_write_1h_tokens, 0), coalesce(e.cost_nano_usd, 0)] AS expected,
         ARRAY[coalesce(a.requests, 0), coalesce(a.input_tokens, 0), coalesce(a.output_tokens, 0),
             coalesce(a.cache_read_tokens, 0), coalesce(a.cache_write_5m_tokens, 0),
             coalesce(a.cache_write_1h_tokens, 0), coalesce(a.cost_nano_usd, 0)] AS actual
    FROM (SELECT * FROM expected) AS e
    FULL JOIN (
      SELECT day, period_id,
             sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
             sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
             sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
             sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd
        FROM usage_daily
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id
    ) AS a
   USING (day, period_id)
  UNION ALL
  SELECT 'usage_monthly' AS rollup, $2::date, period_id,
         ARRAY[coalesce(e.requests, 0), coalesce(e.input_tokens, 0), coalesce(e.output_tokens, 0),
             coalesce(e.cache_read_tokens, 0), coalesce(e.cache_write_5m_tokens, 0),
             coalesce(e.cache_write_1h_tokens, 0), coalesce(e.cost_nano_usd, 0)] AS expected,
         ARRAY[coalesce(a.requests, 0), coalesce(a.input_tokens, 0), coalesce(a.output_tokens, 0),
             coalesce(a.cache_read_tokens, 0), coalesce(a.cache_write_5m_tokens, 0),
             coalesce(a.cache_write_1h_tokens, 0), coalesce(a.cost_nano_usd, 0)] AS actual
    FROM (
      SELECT period_id,
             sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
             sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
             sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
             sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd
        FROM expected
       GROUP BY period_id
    ) AS e
    FULL JOIN (
      SELECT period_id,
             sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
             sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
             sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
             sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd
        FROM usage_monthly
       WHERE tenant_id = $1 AND month = $2
       GROUP BY period_id
    ) AS a
   USING (period_id)
  UNION ALL
  SELECT 'usage_by_day' AS rollup, day, period_id,
         ARRAY[coalesce(e.requests, 0), coalesce(e.input_tokens, 0), coalesce(e.output_tokens, 0),
             coalesce(e.cache_read_tokens, 0), coalesce(e.cache_write_5m_tokens, 0),
             coalesce(e.cache_write_1h_tokens, 0), coalesce(e.cost_nano_usd, 0)] AS expected,
         ARRAY[coalesce(a.requests, 0), coalesce(a.input_tokens, 0), coalesce(a.output_tokens, 0),
             coalesce(a.cache_read_tokens, 0), coalesce(a.cache_write_5m_tokens, 0),
             coalesce(a.cache_write_1h_tokens, 0), coalesce(a.cost_nano_usd, 0)] AS actual
    FROM (SELECT * FROM expected) AS e
    FULL JOIN (
      SELECT day, period_id,
             sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
             sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
             sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
             sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd
        FROM usage_by_day
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id
    ) AS a
   USING (day, period_id)
)
SELECT *, count(*) OVER () AS found
  FROM compared
 WHERE expected <> actual
 ORDER BY rollup, day, period_id
 LIMIT $6
