-- Extends the holds of requests ($1 tenants, $2 ids) settled for a process that may only be suspended: until their
-- deadline, by Postgres's clock. A test clock moved the deadlines ahead by $3 milliseconds.
UPDATE usage_requests r SET hold_until = r.deadline_at - make_interval(secs => $3::bigint / 1000.0)
  FROM unnest($1::uuid[], $2::uuid[]) AS a (tenant_id, id)
 WHERE r.tenant_id = a.tenant_id AND r.id = a.id
   AND r.deadline_at - make_interval(secs => $3::bigint / 1000.0) > clock_timestamp()
