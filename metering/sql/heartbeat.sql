-- Writes the heartbeat of process $1 (host $2, pid $3), with the progress of its open streams ($4, JSON).
-- Inserts the row again if it was pruned while the process was suspended.
INSERT INTO processes AS p (id, host, pid, beat, progress) VALUES ($1, $2, $3, 1, $4)
    ON CONFLICT (id) DO UPDATE
   SET beat = p.beat + 1, beat_at = clock_timestamp(), ended_at = NULL, progress = excluded.progress
