-- What Postgres knows of requests: their state, their user, their counts, and whether their holds still count in full
-- (settled, but the process may only sleep).
SELECT r.tenant_id, r.id, r.user_id, r.state, r.requests, r.input_tokens, r.output_tokens, r.cache_read_tokens,
       r.cache_write_5m_tokens, r.cache_write_1h_tokens, r.cost_nano_usd,
       r.state = 'open' OR coalesce(r.hold_until > clock_timestamp(), false) AS holds
  FROM unnest($1::uuid[], $2::uuid[]) AS a (tenant_id, id)
  JOIN usage_requests r ON r.tenant_id = a.tenant_id AND r.id = a.id
