-- Adds differences to one rollup ($3, a table's name) of tenant $1, key by key, in shard $2, which no process settles
-- into. What settlements added since the differences were found stays.
--
-- $4-$8: user, day, period, key and model; the counts from $9; $18: errors; $19, $20: tag
-- key and value. An array each, an element per key.
SELECT naka_add_usage(
         array_agg(ROW($1::uuid, user_id, day, period_id, key_id, model, {counts}, errors,
                       CASE WHEN tag_key IS NOT NULL THEN jsonb_build_object(tag_key, tag_value) END,
                       CASE WHEN tag_key IS NOT NULL THEN ARRAY[tag_key] END)::naka_usage_0015),
         $2::smallint, ARRAY[$3::text])
  FROM unnest($4::uuid[], $5::date[], $6::text[], $7::uuid[], $8::text[], {parameters $9}, $18::bigint[],
              $19::text[], $20::text[])
    AS a (user_id, day, period_id, key_id, model, {counts}, errors, tag_key, tag_value)
