-- Stores what the settled rows of a month ($1, its first day, in UTC) came to, by tenant, day and period.
INSERT INTO usage_checkpoints
       (tenant_id, month, day, period_id, requests, input_tokens, output_tokens, cache_read_tokens,
        cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd)
SELECT tenant_id, $1::date, day, period_id, sum(requests), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens),
       sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd)
  FROM {table}
 WHERE state = 'settled'
 GROUP BY tenant_id, day, period_id
