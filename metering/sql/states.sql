-- What Postgres knows of requests: their state, their user and their counts.
SELECT r.tenant_id, r.id, r.user_id, r.state, r.requests, r.input_tokens, r.output_tokens, r.cache_read_tokens,
       r.cache_write_5m_tokens, r.cache_write_1h_tokens, r.cost_nano_usd
  FROM unnest($1::uuid[], $2::uuid[]) AS a (tenant_id, id)
  JOIN usage_requests r ON r.tenant_id = a.tenant_id AND r.id = a.id
