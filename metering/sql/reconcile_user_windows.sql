-- What the day $5 and the period $6 came to for each user $2 of tenant $1, of requests from id $3 until $4, without
-- those ($7) for which Redis still counts a hold instead.
SELECT h.user_id, w.kind,
       sum(m.requests)::bigint AS requests, sum(m.input_tokens)::bigint AS input_tokens,
       sum(m.output_tokens)::bigint AS output_tokens, sum(m.cache_read_tokens)::bigint AS cache_read_tokens,
       sum(m.cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
       sum(m.cache_write_1h_tokens)::bigint AS cache_write_1h_tokens,
       sum(m.cost_nano_usd)::bigint AS cost_nano_usd
  FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::date[], $6::text[]) AS h (user_id, first, before, day, period_id)
 CROSS JOIN LATERAL (
   SELECT r.day, r.period_id,
          r.requests, r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_5m_tokens,
          r.cache_write_1h_tokens, r.cost_nano_usd
     FROM usage_requests r
    WHERE r.tenant_id = $1 AND r.user_id = h.user_id AND r.id >= h.first AND r.id < h.before AND r.state = 'settled'
      AND r.id <> ALL ($7::uuid[])
   UNION ALL
   SELECT e.day, e.period_id,
          e.requests, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_5m_tokens,
          e.cache_write_1h_tokens, e.cost_nano_usd
     FROM usage_entries e
    WHERE e.tenant_id = $1 AND e.user_id = h.user_id AND e.kind <> 'repair'
      AND (e.period_id = h.period_id OR e.day = h.day)
 ) AS m
 CROSS JOIN LATERAL (VALUES ('d', m.day = h.day), ('p', m.period_id = h.period_id)) AS w (kind, inside)
 WHERE w.inside
 GROUP BY h.user_id, w.kind
