-- Adds differences to the meters of tenant $1, in shard $2, which no process settles into, and enters each as a repair.
--
-- $3, $4: the entries' ids and their periods; the counts from $5; $14: the actor, $15: the reason.
WITH repairs AS (
  SELECT * FROM unnest($3::uuid[], $4::text[], {parameters $5}) AS a (id, period_id, {counts})
), entered AS (
  INSERT INTO usage_entries (tenant_id, id, kind, period_id, actor, reason, {counts})
  SELECT $1::uuid, id, 'repair', period_id, $14, $15, {counts} FROM repairs
)
SELECT naka_add_usage(
         array_agg(ROW($1::uuid, NULL, NULL, period_id, NULL, NULL, {counts}, 0, NULL, NULL)::naka_usage_0015),
         $2::smallint, ARRAY['usage_meters'])
  FROM repairs
