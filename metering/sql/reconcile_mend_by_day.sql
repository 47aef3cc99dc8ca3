-- Adds differences to the rollup by day of tenant $1, in a shard ($2) that no process settles into.
INSERT INTO usage_by_day AS b
       (tenant_id, day, period_id, model, shard, requests, input_tokens, output_tokens, cache_read_tokens,
        cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors)
SELECT $1::uuid, day, period_id, model, $2::smallint, requests, input_tokens, output_tokens, cache_read_tokens,
       cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors
  FROM unnest($3::date[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
              $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
       AS a (day, period_id, model, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
             cache_write_1h_tokens, cost_nano_usd, errors)
 ORDER BY day, period_id, model
    ON CONFLICT (tenant_id, day, period_id, model, shard) DO UPDATE
   SET requests = b.requests + excluded.requests, input_tokens = b.input_tokens + excluded.input_tokens,
       output_tokens = b.output_tokens + excluded.output_tokens,
       cache_read_tokens = b.cache_read_tokens + excluded.cache_read_tokens,
       cache_write_5m_tokens = b.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
       cache_write_1h_tokens = b.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
       cost_nano_usd = b.cost_nano_usd + excluded.cost_nano_usd,
       errors = b.errors + excluded.errors
