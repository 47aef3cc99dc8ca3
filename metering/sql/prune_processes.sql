-- Processes that said goodbye, or whose beat has stood still for $1, and that left nothing open.
-- One that beats at this moment stays: its row is locked by the beat, and looked at anew after it.
DELETE FROM processes p
 WHERE (p.ended_at IS NOT NULL OR p.beat_at < clock_timestamp() - $1::interval)
   AND NOT EXISTS (SELECT FROM usage_requests r WHERE r.process_id = p.id AND r.state = 'open')
