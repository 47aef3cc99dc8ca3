-- The gauges of /metrics: open requests and those past their deadline, processes with a heartbeat within $1, drifts and
-- age of the last reconciliation, for how long the hourly jobs have been due (null: no worker has ever run), and
-- whether Postgres accepts writes.
SELECT opened.requests, opened.overdue, alive.processes, latest.drifts, latest.age_s, waiting.overdue_s,
       (NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean)::int
  FROM (SELECT count(*) AS requests,
               count(*) FILTER (WHERE deadline_at < clock_timestamp()) AS overdue
          FROM usage_requests WHERE state = 'open') opened
 CROSS JOIN (SELECT count(*) AS processes
          FROM processes WHERE ended_at IS NULL AND beat_at > clock_timestamp() - $1::interval) alive
  LEFT JOIN (SELECT drifts, extract(epoch FROM clock_timestamp() - ran_at)::float8 AS age_s
          FROM reconciliations ORDER BY ran_at DESC LIMIT 1) latest ON true
 CROSS JOIN (SELECT CASE WHEN count(*) > 0
                    THEN greatest(0, extract(epoch FROM clock_timestamp() - min(due.next_run)))::float8 END AS overdue_s
          FROM (SELECT max(next_run) AS next_run FROM pgqueuer.pgqueuer_schedules
                 WHERE entrypoint IN ('partitions', 'prune', 'retain') GROUP BY entrypoint) due) waiting
