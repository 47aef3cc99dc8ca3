-- The meters that differ from rows and entries, in one snapshot. Returns period_id, expected, actual: the counts.
--
-- $1: the tenant. $2: the month in which the periods begin (as '2026-11': a period's name starts with it). $3, $4: the
-- first id of the periods' requests, and the first one after them.
-- A checkpoint holds the sums of rows that were detached. A repair counts on neither side: it has no row.
WITH expected AS (
  SELECT period_id, {sums}
    FROM (
      SELECT period_id, {counts}
        FROM usage_requests
       WHERE tenant_id = $1 AND id >= $3 AND id < $4 AND state = 'settled' AND left(period_id, 7) = $2
      UNION ALL
      SELECT period_id, {counts} FROM usage_checkpoints WHERE tenant_id = $1 AND left(period_id, 7) = $2
      UNION ALL
      SELECT period_id, {counts}
        FROM usage_entries
       WHERE tenant_id = $1 AND kind <> 'repair' AND left(period_id, 7) = $2
    ) AS measured
   GROUP BY period_id
), actual AS (
  SELECT period_id, {sums} FROM usage_meters WHERE tenant_id = $1 AND left(period_id, 7) = $2 GROUP BY period_id
), compared AS (
  SELECT period_id, ARRAY[{e.or_zero}] AS expected, ARRAY[{a.or_zero}] AS actual
    FROM expected e FULL JOIN actual a USING (period_id)
)
SELECT * FROM compared WHERE expected <> actual ORDER BY period_id
