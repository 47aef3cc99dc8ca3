-- Settles a batch: the rows, the rollups and the meters, in one transaction, by what the update really changed.
--
-- A row that is settled already is not open, so nothing moves twice however often this runs. Rows are locked in one
-- order by every process: requests, meters, by day, monthly, daily; each by its key. (Postgres runs those parts of a WITH
-- that nothing reads from the last to the first.) Of meters and days a process has rows of its own ($18, its shard). A
-- failure of ours or the provider's is an error ($19); that the client left is none.
-- Returns the ids that were settled now.
WITH known AS (
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
                $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
                $16::bigint[], $17::bigint[])
      AS a (tenant_id, id, outcome, source, model, model_known, stop_reason, upstream_request_id, upstream_message_id,
            output_chars, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
            cache_write_1h_tokens, cost_nano_usd)
), settled AS (
  UPDATE usage_requests r
     SET state = 'settled', settled_at = clock_timestamp(), outcome = a.outcome, source = a.source,
         model = a.model, model_known = a.model_known, stop_reason = a.stop_reason,
         upstream_request_id = a.upstream_request_id, upstream_message_id = a.upstream_message_id,
         output_chars = a.output_chars, requests = a.requests, input_tokens = a.input_tokens,
         output_tokens = a.output_tokens, cache_read_tokens = a.cache_read_tokens,
         cache_write_5m_tokens = a.cache_write_5m_tokens, cache_write_1h_tokens = a.cache_write_1h_tokens,
         cost_nano_usd = a.cost_nano_usd
    FROM known a
   WHERE r.tenant_id = a.tenant_id AND r.id = a.id AND r.state = 'open'
  RETURNING r.tenant_id, r.id, r.user_id, r.key_id, r.day, r.period_id, r.model, r.requests, r.input_tokens,
            r.output_tokens, r.cache_read_tokens, r.cache_write_5m_tokens, r.cache_write_1h_tokens, r.cost_nano_usd,
            (r.outcome = ANY ($19::text[]))::integer AS errors
), daily AS (
  INSERT INTO usage_daily AS d
         (tenant_id, user_id, day, period_id, key_id, model, requests, input_tokens, output_tokens, cache_read_tokens,
          cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors)
  SELECT tenant_id, user_id, day, period_id, key_id, model, sum(requests), sum(input_tokens), sum(output_tokens),
         sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd), sum(errors)
    FROM settled
   GROUP BY tenant_id, user_id, day, period_id, key_id, model
   ORDER BY tenant_id, user_id, day, period_id, key_id, model
      ON CONFLICT (tenant_id, user_id, day, period_id, key_id, model) DO UPDATE
     SET requests = d.requests + excluded.requests, input_tokens = d.input_tokens + excluded.input_tokens,
         output_tokens = d.output_tokens + excluded.output_tokens,
         cache_read_tokens = d.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = d.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = d.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         cost_nano_usd = d.cost_nano_usd + excluded.cost_nano_usd,
         errors = d.errors + excluded.errors
), monthly AS (
  INSERT INTO usage_monthly AS n
         (tenant_id, user_id, month, period_id, key_id, model, requests, input_tokens, output_tokens,
          cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors)
  SELECT tenant_id, user_id, date_trunc('month', day)::date AS month, period_id, key_id, model,
         sum(requests), sum(input_tokens), sum(output_tokens),
         sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd), sum(errors)
    FROM settled
   GROUP BY tenant_id, user_id, date_trunc('month', day)::date, period_id, key_id, model
   ORDER BY tenant_id, user_id, date_trunc('month', day)::date, period_id, key_id, model
      ON CONFLICT (tenant_id, user_id, month, period_id, key_id, model) DO UPDATE
     SET requests = n.requests + excluded.requests, input_tokens = n.input_tokens + excluded.input_tokens,
         output_tokens = n.output_tokens + excluded.output_tokens,
         cache_read_tokens = n.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = n.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = n.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         cost_nano_usd = n.cost_nano_usd + excluded.cost_nano_usd,
         errors = n.errors + excluded.errors
), by_day AS (
  INSERT INTO usage_by_day AS b
         (tenant_id, day, period_id, model, shard, requests, input_tokens, output_tokens, cache_read_tokens,
          cache_write_5m_tokens, cache_write_1h_tokens, cost_nano_usd, errors)
  SELECT tenant_id, day, period_id, model, $18::smallint, sum(requests), sum(input_tokens), sum(output_tokens),
         sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd), sum(errors)
    FROM settled
   GROUP BY tenant_id, day, period_id, model
   ORDER BY tenant_id, day, period_id, model
      ON CONFLICT (tenant_id, day, period_id, model, shard) DO UPDATE
     SET requests = b.requests + excluded.requests, input_tokens = b.input_tokens + excluded.input_tokens,
         output_tokens = b.output_tokens + excluded.output_tokens,
         cache_read_tokens = b.cache_read_tokens + excluded.cache_read_tokens,
         cache_write_5m_tokens = b.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
         cache_write_1h_tokens = b.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
         cost_nano_usd = b.cost_nano_usd + excluded.cost_nano_usd,
         errors = b.errors + excluded.errors
), meters AS (
  INSERT INTO usage_meters AS m
         (tenant_id, period_id, shard, requests, input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens,
          cache_write_1h_tokens, cost_nano_usd)
  SELECT tenant_id, period_id, $18::smallint, sum(requests), sum(input_tokens), sum(output_tokens),
         sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost_nano_usd)
    FROM settled
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
SELECT id FROM settled
