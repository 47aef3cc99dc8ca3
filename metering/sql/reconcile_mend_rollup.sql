-- Adds differences to the rollup of tenant $1, key by key, in the order in which settlements touch it. What settlements
-- moved since the differences were found stays: the newest version of a row is added to, and a missing one is made.
INSERT INTO usage_daily AS d
       (tenant_id, user_id, day, period_id, key_id, model, requests, input_tokens, output_tokens, cache_read_tokens,
        cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors)
SELECT $1::uuid, *
  FROM unnest($2::uuid[], $3::date[], $4::text[], $5::uuid[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[],
              $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[])
       AS a (user_id, day, period_id, key_id, model, requests, input_tokens, output_tokens, cache_read_tokens,
             cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors)
 ORDER BY user_id, day, period_id, key_id, model
    ON CONFLICT (tenant_id, user_id, day, period_id, key_id, model) DO UPDATE
   SET requests = d.requests + excluded.requests, input_tokens = d.input_tokens + excluded.input_tokens,
       output_tokens = d.output_tokens + excluded.output_tokens,
       cache_read_tokens = d.cache_read_tokens + excluded.cache_read_tokens,
       cache_write_5m_tokens = d.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
       cache_write_1h_tokens = d.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
       cost_nano_usd = d.cost_nano_usd + excluded.cost_nano_usd,
       errors = d.errors + excluded.errors
