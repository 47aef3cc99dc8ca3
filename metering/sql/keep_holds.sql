-- Requests that were settled for a process that may only sleep: their holds go on counting until their deadline, by the
-- clock of Postgres. Deadlines go by that of the grants, which a test clock may have moved ahead by $3 milliseconds.
UPDATE usage_requests r SET hold_until = r.deadline_at - make_interval(secs => $3::bigint / 1000.0)
  FROM unnest($1::uuid[], $2::uuid[]) AS a (tenant_id, id)
 WHERE r.tenant_id = a.tenant_id AND r.id = a.id
   AND r.deadline_at - make_interval(secs => $3::bigint / 1000.0) > clock_timestamp()
