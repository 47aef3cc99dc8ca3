-- Adds differences to one rollup ($3, a table's name) of tenant $1, key by key, in shard $2, which no process settles
-- into. What settlements added since the differences were found stays.
--
-- $4-$8: user, day, period, key and model; the counts from $9; $18: errors. An array each, an element per key.
SELECT naka_add_usage(
         array_agg(ROW($1::uuid, user_id, day, period_id, key_id, model, {counts}, errors)::naka_usage_0012),
         $2::smallint, ARRAY[$3::text])
  FROM unnest($4::uuid[], $5::date[], $6::text[], $7::uuid[], $8::text[], {parameters $9}, $18::bigint[])
    AS a (user_id, day, period_id, key_id, model, {counts}, errors)
