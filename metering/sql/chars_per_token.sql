-- Adds the measurements of a process to the shared table: $1 models, $2 characters, $3 output tokens; empty arrays add
-- nothing. Returns the whole table.
--
-- Past 5 million tokens both sums of a model are halved, so that recent measurements weigh more. Rows are locked in the
-- order of the models.
WITH added AS (
  INSERT INTO output_densities AS d (model, output_chars, output_tokens)
  SELECT model, sum(chars)::bigint, sum(tokens)::bigint
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS a (model, chars, tokens)
   GROUP BY model
   ORDER BY model
      ON CONFLICT (model) DO UPDATE
     SET output_chars = (d.output_chars + excluded.output_chars)
                        / CASE WHEN d.output_tokens + excluded.output_tokens > 5000000 THEN 2 ELSE 1 END,
         output_tokens = (d.output_tokens + excluded.output_tokens)
                         / CASE WHEN d.output_tokens + excluded.output_tokens > 5000000 THEN 2 ELSE 1 END
  RETURNING model, output_chars, output_tokens
)
SELECT model, output_chars, output_tokens FROM added
 UNION ALL
SELECT model, output_chars, output_tokens
  FROM output_densities
 WHERE model NOT IN (SELECT model FROM added)
