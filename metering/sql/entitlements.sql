-- The entitlements of users ($1 tenants, $2 users), in one snapshot. Returns a row per tenant, with its epoch and
-- billing's projection (subject_id null), and a row per set of limits: of a user, of the tenant itself, or (subject_id
-- all zeros) of all its users that have no set of their own.
WITH asked AS (
  SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS a (tenant_id, user_id)
)
SELECT t.id AS tenant_id, NULL::uuid AS subject_id, e.epoch, n.plan_version, n.limits::text AS limits,
       n.schedule::text AS schedule, NULL::integer AS concurrency
  FROM (SELECT DISTINCT tenant_id FROM asked) a
  JOIN tenants t ON t.id = a.tenant_id
  LEFT JOIN tenant_epochs e ON e.tenant_id = t.id
  LEFT JOIN entitlements n ON n.tenant_id = t.id
UNION ALL
SELECT l.tenant_id, l.subject_id, NULL, NULL, l.limits::text, NULL, l.concurrency
  FROM (SELECT tenant_id, user_id AS subject_id FROM asked
         UNION SELECT tenant_id, tenant_id FROM asked
         UNION SELECT tenant_id, '00000000-0000-0000-0000-000000000000' FROM asked) s
  JOIN limit_sets l ON l.tenant_id = s.tenant_id AND l.subject_id = s.subject_id
