-- Moves the meters of tenant $1 by differences, and enters each as a repair: one transaction, one statement. The meter
-- has a shard ($2) that no process settles into.
WITH repairs AS (
  SELECT *
    FROM unnest($3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
                $10::bigint[], $11::bigint[])
      AS a (id, period_id, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
            cache_write_1h_tokens, cost_nano_usd)
), meters AS (
  INSERT INTO usage_meters AS m
         (tenant_id, period_id, shard, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
          cache_write_1h_tokens, cost_nano_usd)
  SELECT $1::uuid, period_id, $2::smallint, requests, input_tokens, output_tokens, cache_read_tokens,
         cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd
    FROM repairs
   ORDER BY period_id
      ON CONFLICT (tenant_id, period_id, shard) DO UPDATE
     SET requests = m.requests + excluded.requests, input_tokens = m.input_tokens + excluded.input_tokens,
         output_tokens = m.output_tokens + excluded.output_tokens,
         cache_read_tokens = m.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = m.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = m.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         cost_nano_usd = m.cost_nano_usd + excluded.cost_nano_usd
)
INSERT INTO usage_entries
       (tenant_id, id, kind, period_id, actor, reason, requests, input_tokens, output_tokens, cache_read_tokens,
        cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd)
SELECT $1::uuid, id, 'repair', period_id, $12, $13, requests, input_tokens, output_tokens, cache_read_tokens,
       cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd
  FROM repairs
