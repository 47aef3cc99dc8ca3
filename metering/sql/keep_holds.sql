-- Requests that were settled for a process that may only sleep: their holds go on counting until their deadline.
UPDATE usage_requests r SET hold_until = r.deadline_at
  FROM unnest($1::uuid[], $2::uuid[]) AS a (tenant_id, id)
 WHERE r.tenant_id = a.tenant_id AND r.id = a.id AND r.deadline_at > clock_timestamp()
