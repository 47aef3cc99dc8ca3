-- The heartbeat of a process ($1): one write, with the progress ($4, JSON) of all its open streams.
-- A process whose row was pruned while it slept is there again.
INSERT INTO processes AS p (id, host, pid, beat, progress) VALUES ($1, $2, $3, 1, $4)
    ON CONFLICT (id) DO UPDATE
   SET beat = p.beat + 1, beat_at = clock_timestamp(), ended_at = NULL, progress = excluded.progress
