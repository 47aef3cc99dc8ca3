-- Appends entries, and adds those that were appended to the rollups and the meters. An entry whose reference the tenant
-- already has is not appended.
--
-- $1-$15 and the counts from $16: one array per column, an element per entry. $25: the shard of meters and days.
-- Returns the entries that were appended. Lock order: request rows before this statement, then entries, then that of
-- naka_add_usage (migration 0012), then the epoch.
WITH appended AS (
  INSERT INTO usage_entries
         (tenant_id, id, kind, request_id, user_id, key_id, model, period_id, day, source, outcome, actor,
          actor_key_id, reason, reference, {counts})
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::text[],
                $9::date[], $10::text[], $11::text[], $12::text[], $13::uuid[], $14::text[], $15::text[],
                {parameters $16})
      ON CONFLICT (tenant_id, reference) WHERE reference IS NOT NULL DO NOTHING
  RETURNING *
), added AS MATERIALIZED (
  SELECT naka_add_usage(
           array_agg(ROW(tenant_id, user_id, day, period_id, key_id, model, {counts}, 0)::naka_usage_0012),
           $25::smallint)
    FROM appended
)
SELECT appended.* FROM appended CROSS JOIN added
