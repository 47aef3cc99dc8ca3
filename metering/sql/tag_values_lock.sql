-- Locks the distinct values of keys ($1 tenants, $2 keys, $3 days) until the end of the transaction, in one order.
-- A statement of its own: the next one has to see what the previous owner of the lock entered.
SELECT pg_advisory_xact_lock(hashtextextended(name, 15))
  FROM (SELECT DISTINCT 'naka tag ' || tenant_id || ' ' || key || ' ' || day AS name
          FROM unnest($1::uuid[], $2::text[], $3::date[]) AS a (tenant_id, key, day)
         ORDER BY name) AS names
