-- Opens requests: inserts a row for each whose epoch is still the tenant's and whose key is valid.
--
-- $1-$16: one array per column. $17: the process. Returns the ids that were opened; not_opened.sql tells why others
-- were not. The share locks make this final: a rebuild locks the epoch's row and a revocation the key's row
-- exclusively, so either waits for this statement or is seen by it (a row that was locked is read again).
WITH asked AS (
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::uuid[], $7::text[], $8::text[],
                $9::date[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::bigint[], $14::bigint[],
                $15::bigint[], $16::bigint[])
      AS a (tenant_id, id, user_id, key_id, epoch, price_id, plan_version, period_id, day, opened_at, deadline_at,
            model_asked, held_prompt_tokens, held_output_tokens, held_nano_usd, held_web_searches)
), good AS MATERIALIZED (
  SELECT a.*
    FROM asked a
    JOIN tenant_epochs e ON e.tenant_id = a.tenant_id AND e.epoch = a.epoch
    JOIN api_keys k ON k.tenant_id = a.tenant_id AND k.id = a.key_id AND k.user_id = a.user_id
                   AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > a.opened_at)
     FOR SHARE OF e, k
)
INSERT INTO usage_requests
       (tenant_id, id, user_id, key_id, process_id, state, epoch, price_id, plan_version, period_id, day, opened_at,
        deadline_at, model_asked, held_prompt_tokens, held_output_tokens, held_nano_usd, held_web_searches)
SELECT tenant_id, id, user_id, key_id, $17::uuid, 'open', epoch, price_id, plan_version, period_id, day, opened_at,
       deadline_at, model_asked, held_prompt_tokens, held_output_tokens, held_nano_usd, held_web_searches
  FROM good
RETURNING id
