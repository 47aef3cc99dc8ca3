-- Settles open requests: their rows, an entry for each other model that did something for them, the rollups and the
-- meters, in one statement. Each is settled once, however often this runs, since only rows that are open change.
--
-- $1-$11 and the counts from $12: one array per column, an element per request. $21: the shard of meters and days that
-- this process writes. $22: the outcomes that reports count as errors. $23-$25 (request, entry's id, model) and the
-- counts from $26: an element per entry. Returns one row: the ids that were settled now, or null. Lock order: requests,
-- then that of naka_add_usage (migration 0015).
WITH known AS (
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
                $9::text[], $10::bigint[], $11::text[], {parameters $12})
      AS a (tenant_id, id, outcome, source, model, model_known, stop_reason, upstream_request_id, upstream_message_id,
            output_chars, modifiers, {counts})
), settled AS (
  UPDATE usage_requests r
     SET state = 'settled', settled_at = clock_timestamp(), outcome = a.outcome, source = a.source,
         model = a.model, model_known = a.model_known, stop_reason = a.stop_reason,
         upstream_request_id = a.upstream_request_id, upstream_message_id = a.upstream_message_id,
         output_chars = a.output_chars, modifiers = a.modifiers, ({counts}) = ROW({a.counts})
    FROM known a
   WHERE r.tenant_id = a.tenant_id AND r.id = a.id AND r.state = 'open'
  RETURNING r.tenant_id, r.id, r.user_id, r.day, r.period_id, r.key_id, r.tags, r.tag_keys,
            ROW(r.tenant_id, r.user_id, r.day, r.period_id, r.key_id, r.model, {r.counts},
                (r.outcome = ANY ($22::text[]))::integer, r.tags, r.tag_keys)::naka_usage_0015 AS added
), iterations AS (
  INSERT INTO usage_entries (tenant_id, id, kind, request_id, user_id, key_id, model, period_id, day, actor, reason,
                             {counts})
  SELECT s.tenant_id, o.entry_id, 'iteration', s.id, s.user_id, s.key_id, o.model, s.period_id, s.day, 'naka',
         o.model, {o.counts}
    FROM unnest($23::uuid[], $24::uuid[], $25::text[], {parameters $26}) AS o (request_id, entry_id, model, {counts})
    JOIN settled s ON s.id = o.request_id
  RETURNING request_id, tenant_id, user_id, day, period_id, key_id, model, {counts}
)
SELECT (SELECT array_agg(id) FROM settled) AS ids, naka_add_usage(array_agg(added), $21::smallint)
  FROM (SELECT added FROM settled
         UNION ALL
        SELECT ROW(i.tenant_id, i.user_id, i.day, i.period_id, i.key_id, i.model, {i.counts}, 0, s.tags,
                   s.tag_keys)::naka_usage_0015
          FROM iterations i JOIN settled s ON s.id = i.request_id) AS changed
