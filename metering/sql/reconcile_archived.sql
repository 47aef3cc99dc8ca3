-- The rollups of a month whose rows were detached that differ from its stored sums, by day and period
-- (`usage_monthly`: by period; `usage_by_tag`: by tag, too). Returns rollup, day, period_id, tag_key, tag_value, expected,
-- actual, found (how many differ). Short-lived tokens (`nk:token`) are not compared: their sums go with the rows.
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
), tagged AS (
  SELECT day, period_id, tag_key, tag_value, {sums}
    FROM (
      SELECT r.day, r.period_id, t.key AS tag_key, r.tags ->> t.key AS tag_value, {r.counts}
        FROM usage_requests r, unnest(r.tag_keys) AS t (key)
       WHERE r.tenant_id = $1 AND r.id >= $4 AND r.id < $5 AND r.state = 'settled' AND r.day >= $2 AND r.day < $3
         AND r.tag_keys IS NOT NULL
      UNION ALL
      SELECT day, period_id, tag_key, tag_value, {counts}
        FROM usage_tag_checkpoints
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
      UNION ALL
      SELECT e.day, e.period_id, t.key, r.tags ->> t.key, {e.counts}
        FROM usage_entries e
        JOIN usage_requests r ON r.tenant_id = e.tenant_id AND r.id = e.request_id, unnest(r.tag_keys) AS t (key)
       WHERE e.tenant_id = $1 AND e.kind <> 'repair' AND e.day >= $2 AND e.day < $3
    ) AS measured
   WHERE tag_key <> 'nk:token'
   GROUP BY day, period_id, tag_key, tag_value
), compared AS (
  SELECT 'usage_daily' AS rollup, day, period_id, NULL AS tag_key, NULL AS tag_value, ARRAY[{e.or_zero}] AS expected, ARRAY[{a.or_zero}] AS actual
    FROM (SELECT * FROM expected) AS e
    FULL JOIN (
      SELECT day, period_id, {sums}
        FROM usage_daily
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id
    ) AS a USING (day, period_id)
  UNION ALL
  SELECT 'usage_monthly', $2::date, period_id, NULL, NULL, ARRAY[{e.or_zero}], ARRAY[{a.or_zero}]
    FROM (SELECT period_id, {sums} FROM expected GROUP BY period_id) AS e
    FULL JOIN (
      SELECT period_id, {sums} FROM usage_monthly WHERE tenant_id = $1 AND month = $2 GROUP BY period_id
    ) AS a USING (period_id)
  UNION ALL
  SELECT 'usage_by_day', day, period_id, NULL, NULL, ARRAY[{e.or_zero}], ARRAY[{a.or_zero}]
    FROM (SELECT * FROM expected) AS e
    FULL JOIN (
      SELECT day, period_id, {sums}
        FROM usage_by_day
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id
    ) AS a USING (day, period_id)
  UNION ALL
  SELECT 'usage_by_tag', day, period_id, tag_key, tag_value, ARRAY[{e.or_zero}], ARRAY[{a.or_zero}]
    FROM tagged AS e
    FULL JOIN (
      SELECT day, period_id, tag_key, tag_value, {sums}
        FROM usage_by_tag
       WHERE tenant_id = $1 AND day >= $2 AND day < $3 AND tag_key <> 'nk:token'
       GROUP BY day, period_id, tag_key, tag_value
    ) AS a USING (day, period_id, tag_key, tag_value)
)
SELECT *, count(*) OVER () AS found
  FROM compared
 WHERE expected <> actual
 ORDER BY rollup, day, period_id, tag_key, tag_value
 LIMIT $6
