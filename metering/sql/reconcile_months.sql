-- The months of tenant $1 to compare: from $2 on, and those that entries of the last week touched, but none before $3.
-- $4-$6: the months that have rows, the first id of each and the first one after it. Returns month, as '2026-11'.
SELECT month
  FROM (
    SELECT left(period_id, 7) AS month, false AS touched FROM usage_meters WHERE tenant_id = $1
    UNION
    SELECT to_char(day, 'YYYY-MM'), false FROM usage_daily WHERE tenant_id = $1 AND day >= ($2 || '-01')::date
    UNION
    SELECT unnest(ARRAY[left(period_id, 7), to_char(day, 'YYYY-MM')]),
           created_at > clock_timestamp() - interval '7 days'
      FROM usage_entries
     WHERE tenant_id = $1
    UNION
    SELECT m.name, false
      FROM unnest($4::text[], $5::uuid[], $6::uuid[]) AS m (name, first, after)
     WHERE EXISTS (SELECT FROM usage_requests r WHERE r.tenant_id = $1 AND r.id >= m.first AND r.id < m.after)
  ) AS months
 WHERE (month >= $2 OR touched) AND month >= $3 AND month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'
 GROUP BY month
 ORDER BY month
