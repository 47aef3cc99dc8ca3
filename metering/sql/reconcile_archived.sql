-- The rollups of a month whose rows were detached that differ from its stored sums, by day and period
-- (`usage_monthly`: by period). Returns rollup, day, period_id, expected, actual, found (how many differ).
--
-- $1: the tenant. $2, $3: the first day of the month, and the first one after it. $4, $5: the first id of its requests,
-- and the first one after them. $6: the most rows to return.
WITH expected AS MATERIALIZED (
  SELECT day, period_id, {sums}
    FROM (
      SELECT day, period_id, {counts}
        FROM usage_requests
       WHERE tenant_id = $1 AND id >= $4 AND id < $5 AND state = 'settled' AND day >= $2 AND day < $3
      UNION ALL
      SELECT day, period_id, {counts} FROM usage_checkpoints WHERE tenant_id = $1 AND day >= $2 AND day < $3
      UNION ALL
      SELECT day, period_id, {counts}
        FROM usage_entries
       WHERE tenant_id = $1 AND kind <> 'repair' AND day >= $2 AND day < $3
    ) AS measured
   GROUP BY day, period_id
), compared AS (
  SELECT 'usage_daily' AS rollup, day, period_id, ARRAY[{e.or_zero}] AS expected, ARRAY[{a.or_zero}] AS actual
    FROM (SELECT * FROM expected) AS e
    FULL JOIN (
      SELECT day, period_id, {sums}
        FROM usage_daily
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id
    ) AS a USING (day, period_id)
  UNION ALL
  SELECT 'usage_monthly', $2::date, period_id, ARRAY[{e.or_zero}], ARRAY[{a.or_zero}]
    FROM (SELECT period_id, {sums} FROM expected GROUP BY period_id) AS e
    FULL JOIN (
      SELECT period_id, {sums} FROM usage_monthly WHERE tenant_id = $1 AND month = $2 GROUP BY period_id
    ) AS a USING (period_id)
  UNION ALL
  SELECT 'usage_by_day', day, period_id, ARRAY[{e.or_zero}], ARRAY[{a.or_zero}]
    FROM (SELECT * FROM expected) AS e
    FULL JOIN (
      SELECT day, period_id, {sums}
        FROM usage_by_day
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id
    ) AS a USING (day, period_id)
)
SELECT *, count(*) OVER () AS found
  FROM compared
 WHERE expected <> actual
 ORDER BY rollup, day, period_id
 LIMIT $6
