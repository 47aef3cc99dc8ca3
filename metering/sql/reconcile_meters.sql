-- Where the meters differ from their rows and entries, in one snapshot: tenant $1, periods that begin in the month $2
-- (as '2026-11': a period's name starts with it), whose requests have ids from $3 until $4.
--
-- Rows that were detached are in their checkpoint. A repair is on neither side: it has no row, and what it moved is in the meter already.
WITH expected AS (
  SELECT period_id,
         sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
         sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
         sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
         sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd
    FROM (
      SELECT period_id,
             requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd
        FROM usage_requests
       WHERE tenant_id = $1 AND id >= $3 AND id < $4 AND state = 'settled' AND left(period_id, 7) = $2
      UNION ALL
      SELECT period_id,
             requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd
        FROM usage_checkpoints
       WHERE tenant_id = $1 AND left(period_id, 7) = $2
      UNION ALL
      SELECT period_id,
             requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd
        FROM usage_entries
       WHERE tenant_id = $1 AND kind <> 'repair' AND left(period_id, 7) = $2
    ) AS measured
   GROUP BY period_id
), actual AS (
  SELECT period_id,
         sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
         sum(output_tokens)::bigint AS output_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens,
         sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
         sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost_nano_usd)::bigint AS cost_nano_usd
    FROM usage_meters
   WHERE tenant_id = $1 AND left(period_id, 7) = $2
   GROUP BY period_id
), compared AS (
  SELECT period_id,
         ARRAY[coalesce(e.requests, 0), coalesce(e.input_tokens, 0), coalesce(e.output_tokens, 0),
             coalesce(e.cache_read_tokens, 0), coalesce(e.cache_write_5m_tokens, 0),
             coalesce(e.cache_write_1h_tokens, 0), coalesce(e.cost_nano_usd, 0)] AS expected,
         ARRAY[coalesce(a.requests, 0), coalesce(a.input_tokens, 0), coalesce(a.output_tokens, 0),
             coalesce(a.cache_read_tokens, 0), coalesce(a.cache_write_5m_tokens, 0),
             coalesce(a.cache_write_1h_tokens, 0), coalesce(a.cost_nano_usd, 0)] AS actual
    FROM expected e FULL JOIN actual a USING (period_id)
)
SELECT * FROM compared WHERE expected <> actual ORDER BY period_id
