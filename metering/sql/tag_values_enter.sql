-- Enters values ($1 tenants, $2 keys, $3 days, $4 values) of which a key has at most $5 on a day; call it under
-- tag_values_lock. Returns each with is_within: whether it is one of them. A key that refused one gets the value '' on
-- that day, as a mark.
WITH asked AS (
  SELECT DISTINCT *
    FROM unnest($1::uuid[], $2::text[], $3::date[], $4::text[], $5::integer[]) AS a (tenant_id, key, day, value, most)
), missing AS (
  SELECT a.*, dense_rank() OVER (PARTITION BY tenant_id, key, day ORDER BY value) AS place
    FROM asked a
   WHERE NOT EXISTS (SELECT FROM tag_values v
                      WHERE v.tenant_id = a.tenant_id AND v.key = a.key AND v.day = a.day AND v.value = a.value)
), counted AS (
  SELECT m.tenant_id, m.key, m.day,
         (SELECT count(*) FROM tag_values v
           WHERE v.tenant_id = m.tenant_id AND v.key = m.key AND v.day = m.day AND v.value <> '') AS known
    FROM (SELECT DISTINCT tenant_id, key, day FROM missing) AS m
), decided AS (
  SELECT m.*, c.known + m.place <= m.most AS is_within FROM missing m JOIN counted c USING (tenant_id, key, day)
), entered AS (
  INSERT INTO tag_values (tenant_id, key, day, value)
  SELECT DISTINCT tenant_id, key, day, CASE WHEN is_within THEN value ELSE '' END FROM decided
      ON CONFLICT DO NOTHING
)
SELECT a.*, coalesce(d.is_within, true) AS is_within
  FROM asked a LEFT JOIN decided d USING (tenant_id, key, day, value, most)
