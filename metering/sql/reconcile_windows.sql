-- The usage of each user $2 of tenant $1 in a day and in a period. Returns user_id, kind ('d' or 'p') and the counts.
-- Without its conditions on user_id, the usage of the whole tenant ($2: null).
--
-- $2-$6, an array each: the users, the first id of the requests, the first one after them, the day, the period, which
-- counts with all its segments (2026-11~2). $7: the requests for which Redis still counts a hold; they and their
-- iterations are left out. Every segment with usage has a meter, which keeps the index of the entries in use.
SELECT h.user_id, w.kind, {m.sums}
  FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::date[], $6::text[]) AS h (user_id, first, before, day, period_id)
 CROSS JOIN LATERAL (
   SELECT coalesce(array_agg(DISTINCT t.period_id), '{}') || h.period_id AS names
     FROM usage_meters t
    WHERE t.tenant_id = $1 AND split_part(t.period_id, '~', 1) = h.period_id
 ) AS s
 CROSS JOIN LATERAL (
   SELECT r.day, r.period_id, {r.counts}
     FROM usage_requests r
    WHERE r.tenant_id = $1 AND user_id = h.user_id AND r.id >= h.first AND r.id < h.before AND r.state = 'settled'
      AND r.id <> ALL ($7::uuid[])
   UNION ALL
   SELECT e.day, e.period_id, {e.counts}
     FROM usage_entries e
    WHERE e.tenant_id = $1 AND user_id = h.user_id AND e.kind <> 'repair'
      AND (e.period_id = ANY (s.names) OR e.day = h.day)
      AND (e.kind <> 'iteration' OR e.request_id <> ALL ($7::uuid[]))
 ) AS m
 CROSS JOIN LATERAL (VALUES ('d', m.day = h.day), ('p', split_part(m.period_id, '~', 1) = h.period_id)) AS w (kind, inside)
 WHERE w.inside
 GROUP BY h.user_id, w.kind
