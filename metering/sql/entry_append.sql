-- Appends entries, and moves the rollups and the meters by what was really appended: an entry whose reference the tenant
-- has already is not, and moves nothing.
--
-- Rows are locked in the order of settle.sql, whose WITH this repeats; whoever locks request rows does so before, and
-- the epoch comes last. Meters and days move in the shard $23. Returns the entries that were appended.
WITH known AS (
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::text[],
                $9::date[], $10::text[], $11::text[], $12::text[], $13::uuid[], $14::text[], $15::text[],
                $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[],
                $22::bigint[])
      AS a (tenant_id, id, kind, request_id, user_id, key_id, model, period_id, day, source, outcome, actor,
            actor_key_id, reason, reference, requests, input_tokens, output_tokens, cache_read_tokens,
            cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd)
), appended AS (
  INSERT INTO usage_entries
         (tenant_id, id, kind, request_id, user_id, key_id, model, period_id, day, source, outcome, actor,
          actor_key_id, reason, reference, requests, input_tokens, output_tokens, cache_read_tokens,
          cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd)
  SELECT * FROM known
      ON CONFLICT (tenant_id, reference) WHERE reference IS NOT NULL DO NOTHING
  RETURNING *
), daily AS (
  INSERT INTO usage_daily AS d
         (tenant_id, user_id, day, period_id, key_id, model, requests, input_tokens, output_tokens, cache_read_tokens,
          cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd)
  SELECT tenant_id, user_id, day, period_id, key_id, model, sum(requests), sum(input_tokens), sum(output_tokens),
         sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd)
    FROM appended
   GROUP BY tenant_id, user_id, day, period_id, key_id, model
   ORDER BY tenant_id, user_id, day, period_id, key_id, model
      ON CONFLICT (tenant_id, user_id, day, period_id, key_id, model) DO UPDATE
     SET requests = d.requests + excluded.requests, input_tokens = d.input_tokens + excluded.input_tokens,
         output_tokens = d.output_tokens + excluded.output_tokens,
         cache_read_tokens = d.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = d.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = d.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         cost_nano_usd = d.cost_nano_usd + excluded.cost_nano_usd
), monthly AS (
  INSERT INTO usage_monthly AS n
         (tenant_id, user_id, month, period_id, key_id, model, requests, input_tokens, output_tokens,
          cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd)
  SELECT tenant_id, user_id, date_trunc('month', day)::date AS month, period_id, key_id, model,
         sum(requests), sum(input_tokens), sum(output_tokens),
         sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd)
    FROM appended
   GROUP BY tenant_id, user_id, date_trunc('month', day)::date, period_id, key_id, model
   ORDER BY tenant_id, user_id, date_trunc('month', day)::date, period_id, key_id, model
      ON CONFLICT (tenant_id, user_id, month, period_id, key_id, model) DO UPDATE
     SET requests = n.requests + excluded.requests, input_tokens = n.input_tokens + excluded.input_tokens,
         output_tokens = n.output_tokens + excluded.output_tokens,
         cache_read_tokens = n.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = n.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = n.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         cost_nano_usd = n.cost_nano_usd + excluded.cost_nano_usd
), by_day AS (
  INSERT INTO usage_by_day AS b
         (tenant_id, day, period_id, model, shard, requests, input_tokens, output_tokens, cache_read_tokens,
          cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd)
  SELECT tenant_id, day, period_id, model, $23::smallint, sum(requests), sum(input_tokens), sum(output_tokens),
         sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd)
    FROM appended
   GROUP BY tenant_id, day, period_id, model
   ORDER BY tenant_id, day, period_id, model
      ON CONFLICT (tenant_id, day, period_id, model, shard) DO UPDATE
     SET requests = b.requests + excluded.requests, input_tokens = b.input_tokens + excluded.input_tokens,
         output_tokens = b.output_tokens + excluded.output_tokens,
         cache_read_tokens = b.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = b.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = b.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         cost_nano_usd = b.cost_nano_usd + excluded.cost_nano_usd
), meters AS (
  INSERT INTO usage_meters AS m
         (tenant_id, period_id, shard, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
          cache_write_1h_tokens, cost_nano_usd)
  SELECT tenant_id, period_id, $23::smallint, sum(requests), sum(input_tokens), sum(output_tokens),
         sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd)
    FROM appended
   GROUP BY tenant_id, period_id
   ORDER BY tenant_id, period_id
      ON CONFLICT (tenant_id, period_id, shard) DO UPDATE
     SET requests = m.requests + excluded.requests, input_tokens = m.input_tokens + excluded.input_tokens,
         output_tokens = m.output_tokens + excluded.output_tokens,
         cache_read_tokens = m.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = m.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = m.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         cost_nano_usd = m.cost_nano_usd + excluded.cost_nano_usd
)
SELECT * FROM appended
