-- The requests $2 of the tenants $1 (pairs). Returns tenant_id, id, user_id, state, the counts of all models, and holds:
-- whether the request's hold counts in full, because it is open or was settled for a process that may only be suspended.
SELECT r.tenant_id, r.id, r.user_id, r.state, {whole.counts},
       r.state = 'open' OR coalesce(r.hold_until > clock_timestamp(), false) AS holds
  FROM unnest($1::uuid[], $2::uuid[]) AS a (tenant_id, id)
  JOIN usage_requests r ON r.tenant_id = a.tenant_id AND r.id = a.id
 CROSS JOIN LATERAL (
   SELECT {part.sums}
     FROM (SELECT {r.counts}
            UNION ALL
           SELECT {e.counts}
             FROM usage_entries e
            WHERE e.tenant_id = r.tenant_id AND e.request_id = r.id AND e.kind = 'iteration') AS part
 ) AS whole
