-- Appends entries, and adds those that were appended to the rollups and the meters. An entry whose reference the tenant
-- already has is not appended. It has the tags of its request.
--
-- $1-$15 and the counts from $16: one array per column, an element per entry. $25: the shard of meters and days.
-- Returns the entries that were appended. Lock order: request rows before this statement, then entries, then that of
-- naka_add_usage (migration 0015), then the epoch.
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
           array_agg(ROW(a.tenant_id, a.user_id, a.day, a.period_id, a.key_id, a.model, {a.counts}, 0, r.tags,
                         r.tag_keys)::naka_usage_0015),
           $25::smallint)
    FROM appended a
    LEFT JOIN usage_requests r ON r.tenant_id = a.tenant_id AND r.id = a.request_id
)
SELECT appended.* FROM appended CROSS JOIN added
