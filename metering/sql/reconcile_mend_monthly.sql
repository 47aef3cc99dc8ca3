-- Adds differences to the monthly rollup of tenant $1, as reconcile_mend_rollup.sql does to the daily one.
INSERT INTO usage_monthly AS n
       (tenant_id, user_id, month, period_id, key_id, model, requests, input_tokens, output_tokens, cache_read_tokens,
        cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors)
SELECT $1::uuid, *
  FROM unnest($2::uuid[], $3::date[], $4::text[], $5::uuid[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[],
              $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[])
       AS a (user_id, month, period_id, key_id, model, requests, input_tokens, output_tokens, cache_read_tokens,
             cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors)
 ORDER BY user_id, month, period_id, key_id, model
    ON CONFLICT (tenant_id, user_id, month, period_id, key_id, model) DO UPDATE
   SET requests = n.requests + excluded.requests, input_tokens = n.input_tokens + excluded.input_tokens,
       output_tokens = n.output_tokens + excluded.output_tokens,
       cache_read_tokens = n.cache_read_tokens + excluded.cache_read_tokens,
       cache_write_5m_tokens = n.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
       cache_write_1h_tokens = n.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
       cost_nano_usd = n.cost_nano_usd + excluded.cost_nano_usd,
       errors = n.errors + excluded.errors
