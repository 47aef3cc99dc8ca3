-- Deletes processes that ended, or whose heartbeat is older than $1, and that left no request open.
-- A process that beats at this moment stays: its row is locked by the heartbeat, and checked again after it.
DELETE FROM processes p
 WHERE (p.ended_at IS NOT NULL OR p.beat_at < clock_timestamp() - $1::interval)
   AND NOT EXISTS (SELECT FROM usage_requests r WHERE r.process_id = p.id AND r.state = 'open')
