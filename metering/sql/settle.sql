-- Settles open requests: their rows, the rollups and the meters, in one statement. Each is settled once, however often
-- this runs, since only rows that are open change.
--
-- $1-$10 and the counts from $11: one array per column, an element per request. $18: the shard of meters and days that
-- this process writes. $19: the outcomes that reports count as errors. Returns one row: the ids that were settled now,
-- or null. Lock order: requests, then that of naka_add_usage (migration 0011).
WITH known AS (
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
                $9::text[], $10::bigint[], {parameters $11})
      AS a (tenant_id, id, outcome, source, model, model_known, stop_reason, upstream_request_id, upstream_message_id,
            output_chars, {counts})
), settled AS (
  UPDATE usage_requests r
     SET state = 'settled', settled_at = clock_timestamp(), outcome = a.outcome, source = a.source,
         model = a.model, model_known = a.model_known, stop_reason = a.stop_reason,
         upstream_request_id = a.upstream_request_id, upstream_message_id = a.upstream_message_id,
         output_chars = a.output_chars, ({counts}) = ROW({a.counts})
    FROM known a
   WHERE r.tenant_id = a.tenant_id AND r.id = a.id AND r.state = 'open'
  RETURNING r.id, ROW(r.tenant_id, r.user_id, r.day, r.period_id, r.key_id, r.model, {r.counts},
                      (r.outcome = ANY ($19::text[]))::integer)::naka_usage AS added
)
SELECT array_agg(id) AS ids, naka_add_usage(array_agg(added), $18::smallint) FROM settled
