-- The processes that have open requests. Returns id, beat (-1: the process has no row) and ended.
SELECT p.id, p.beat, p.ended_at IS NOT NULL AS ended
  FROM processes p
 WHERE EXISTS (SELECT FROM usage_requests r WHERE r.process_id = p.id AND r.state = 'open')
UNION ALL
SELECT DISTINCT r.process_id, -1::bigint, false
  FROM usage_requests r
 WHERE r.state = 'open' AND NOT EXISTS (SELECT FROM processes p WHERE p.id = r.process_id)
