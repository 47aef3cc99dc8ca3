-- The last minute of the tenants $1, a row each; if $2, also that of all other tenants, in one row without a tenant.
--
-- $3: the least id of a request that may still run. $4: the least id of one admitted in the last minute. $5: the
-- outcomes that count as errors. Settlements are dated by Postgres's clock, admissions by their id. Reads two ranges of
-- indexes per tenant: the requests since $3, and what other models did for them.
SELECT CASE WHEN t.id = ANY ($1::uuid[]) THEN t.id END AS tenant_id,
       sum(r.running)::bigint AS running, sum(r.admitted)::bigint AS admitted, sum(r.settled)::bigint AS settled,
       sum(r.errors)::bigint AS errors, sum(r.tokens)::bigint AS tokens, sum(r.cost_nano_usd)::bigint AS cost_nano_usd
  FROM tenants t
 CROSS JOIN LATERAL (
   SELECT count(*) FILTER (WHERE state = 'open') AS running,
          count(*) FILTER (WHERE id >= $4 AND state <> 'void') AS admitted,
          count(*) FILTER (WHERE is_fresh AND state = 'settled') AS settled,
          count(*) FILTER (WHERE is_fresh AND outcome = ANY ($5::text[])) AS errors,
          coalesce(sum(tokens) FILTER (WHERE is_fresh), 0) AS tokens,
          coalesce(sum(cost_nano_usd) FILTER (WHERE is_fresh), 0) AS cost_nano_usd
     FROM (SELECT id, state, outcome, cost_nano_usd,
                  input_tokens + output_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens
                    AS tokens,
                  state = 'settled' AND settled_at >= statement_timestamp() - interval '1 minute' AS is_fresh
             FROM usage_requests
            WHERE tenant_id = t.id AND id >= $3
            UNION ALL
           SELECT request_id, NULL, NULL, cost_nano_usd,
                  input_tokens + output_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens,
                  created_at >= statement_timestamp() - interval '1 minute'
             FROM usage_entries
            WHERE tenant_id = t.id AND request_id >= $3 AND kind = 'iteration') AS recent
 ) AS r
 WHERE $2 OR t.id = ANY ($1::uuid[])
 GROUP BY 1
