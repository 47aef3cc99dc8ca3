-- Measured usage by UTC day of the grant and model, for requests with ids from $1 to before $2: settled requests, their
-- revisions, and what other models did for them. Corrections and credits are left out: the provider does not know them.
-- Returns day, model, the counts, estimated and lost.
SELECT day, model, {sums}, sum(estimated)::bigint AS estimated, sum(lost)::bigint AS lost
  FROM (
    SELECT (r.opened_at AT TIME ZONE 'UTC')::date AS day, r.model, {r.counts},
           (r.source = 'estimated' AND NOT EXISTS (
              SELECT FROM usage_entries e
               WHERE e.tenant_id = r.tenant_id AND e.request_id = r.id AND e.kind = 'revision'
                 AND e.source <> 'estimated'))::int AS estimated,
           (r.outcome = 'lost')::int AS lost
      FROM usage_requests r
     WHERE r.id >= $1 AND r.id < $2 AND r.state = 'settled'
    UNION ALL
    SELECT (r.opened_at AT TIME ZONE 'UTC')::date, coalesce(e.model, r.model), {e.counts}, 0, 0
      FROM usage_entries e
      JOIN usage_requests r ON r.tenant_id = e.tenant_id AND r.id = e.request_id
     WHERE e.kind IN ('revision', 'iteration') AND e.request_id >= $1 AND e.request_id < $2
  ) AS measured
 GROUP BY day, model
