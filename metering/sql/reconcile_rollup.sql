-- The keys of the rollups that differ from rows and entries, in one snapshot. Returns rollup, user_id, day, period_id,
-- key_id, model, tag_key, tag_value, expected, actual (the counts and errors), found (how many differ).
--
-- $1: the tenant. $2, $3: the first day of a month, and the first one after it. $4, $5: the first id of its requests,
-- and the first one after them. $6: the most rows to return. $7: the outcomes that count as errors. The day of a key of
-- `usage_monthly` is $2; a key of `usage_by_day` has no user_id and no key_id, one of `usage_by_tag` only a day, a
-- period and a tag. An entry has the tags of its request. A settlement changes no difference: it
-- moves row and rollups in one transaction. A key whose counts are all 0 equals one that is missing.
WITH expected AS MATERIALIZED (
  SELECT user_id, day, period_id, key_id, model, {sums}, sum(errors)::bigint AS errors
    FROM (
      SELECT user_id, day, period_id, key_id, model, {counts}, (outcome = ANY ($7::text[]))::integer AS errors
        FROM usage_requests
       WHERE tenant_id = $1 AND id >= $4 AND id < $5 AND state = 'settled' AND day >= $2 AND day < $3
      UNION ALL
      SELECT user_id, day, period_id, coalesce(key_id, '00000000-0000-0000-0000-000000000000'::uuid),
             coalesce(model, ''), {counts}, 0
        FROM usage_entries
       WHERE tenant_id = $1 AND kind <> 'repair' AND day >= $2 AND day < $3
    ) AS measured
   GROUP BY user_id, day, period_id, key_id, model
), tagged AS (
  SELECT day, period_id, tag_key, tag_value, {sums}, sum(errors)::bigint AS errors
    FROM (
      SELECT r.day, r.period_id, t.key AS tag_key, r.tags ->> t.key AS tag_value, {r.counts},
             (r.outcome = ANY ($7::text[]))::integer AS errors
        FROM usage_requests r, unnest(r.tag_keys) AS t (key)
       WHERE r.tenant_id = $1 AND r.id >= $4 AND r.id < $5 AND r.state = 'settled' AND r.day >= $2 AND r.day < $3
         AND r.tag_keys IS NOT NULL
      UNION ALL
      SELECT e.day, e.period_id, t.key, r.tags ->> t.key, {e.counts}, 0
        FROM usage_entries e
        JOIN usage_requests r ON r.tenant_id = e.tenant_id AND r.id = e.request_id, unnest(r.tag_keys) AS t (key)
       WHERE e.tenant_id = $1 AND e.kind <> 'repair' AND e.day >= $2 AND e.day < $3
    ) AS measured
   GROUP BY day, period_id, tag_key, tag_value
), compared AS (
  SELECT 'usage_daily' AS rollup, user_id, day, period_id, key_id, model, NULL AS tag_key, NULL AS tag_value,
         ARRAY[{e.or_zero}, coalesce(e.errors, 0)] AS expected, ARRAY[{a.or_zero}, coalesce(a.errors, 0)] AS actual
    FROM (SELECT * FROM expected) AS e
    FULL JOIN (SELECT * FROM usage_daily WHERE tenant_id = $1 AND day >= $2 AND day < $3) AS a
   USING (user_id, day, period_id, key_id, model)
  UNION ALL
  SELECT 'usage_monthly', user_id, $2::date, period_id, key_id, model, NULL, NULL,
         ARRAY[{e.or_zero}, coalesce(e.errors, 0)], ARRAY[{a.or_zero}, coalesce(a.errors, 0)]
    FROM (
      SELECT user_id, period_id, key_id, model, {sums}, sum(errors)::bigint AS errors
        FROM expected
       GROUP BY user_id, period_id, key_id, model
    ) AS e
    FULL JOIN (SELECT * FROM usage_monthly WHERE tenant_id = $1 AND month = $2) AS a
   USING (user_id, period_id, key_id, model)
  UNION ALL
  SELECT 'usage_by_day', NULL, day, period_id, NULL, model, NULL, NULL,
         ARRAY[{e.or_zero}, coalesce(e.errors, 0)], ARRAY[{a.or_zero}, coalesce(a.errors, 0)]
    FROM (
      SELECT day, period_id, model, {sums}, sum(errors)::bigint AS errors FROM expected GROUP BY day, period_id, model
    ) AS e
    FULL JOIN (
      SELECT day, period_id, model, {sums}, sum(errors)::bigint AS errors
        FROM usage_by_day
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id, model
    ) AS a
   USING (day, period_id, model)
  UNION ALL
  SELECT 'usage_by_tag', NULL, day, period_id, NULL, NULL, tag_key, tag_value,
         ARRAY[{e.or_zero}, coalesce(e.errors, 0)], ARRAY[{a.or_zero}, coalesce(a.errors, 0)]
    FROM tagged AS e
    FULL JOIN (
      SELECT day, period_id, tag_key, tag_value, {sums}, sum(errors)::bigint AS errors
        FROM usage_by_tag
       WHERE tenant_id = $1 AND day >= $2 AND day < $3
       GROUP BY day, period_id, tag_key, tag_value
    ) AS a
   USING (day, period_id, tag_key, tag_value)
)
SELECT *, count(*) OVER () AS found
  FROM compared
 WHERE expected <> actual
 ORDER BY rollup, user_id, day, period_id, key_id, model, tag_key, tag_value
 LIMIT $6
