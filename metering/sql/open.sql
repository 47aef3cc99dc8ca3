-- Opens requests: inserts a row for each whose epoch is still the tenant's, and whose key, key's owner and user are valid.
--
-- $1-$18: one array per column; tags as JSON, tag_keys joined by commas. $19: the process. Returns the ids that were
-- opened; not_opened.sql tells why others were not. The share locks make this final: a rebuild locks the epoch's row and a revocation the key's row
-- exclusively, so either waits for this statement or is seen by it (a row that was locked is read again). Users
-- (u: whom the request is for, o: the key's owner, often the same) are read without a lock: no statement that starts
-- after one of them was disabled opens a request.
WITH asked AS (
  SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::uuid[], $7::text[], $8::text[],
                $9::date[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::bigint[], $14::bigint[],
                $15::bigint[], $16::bigint[], $17::jsonb[], $18::text[])
      AS a (tenant_id, id, user_id, key_id, epoch, price_id, plan_version, period_id, day, opened_at, deadline_at,
            model_asked, held_prompt_tokens, held_output_tokens, held_nano_usd, held_web_searches, tags, tag_keys)
), good AS MATERIALIZED (
  SELECT a.*
    FROM asked a
    JOIN tenant_epochs e ON e.tenant_id = a.tenant_id AND e.epoch = a.epoch
    JOIN api_keys k ON k.tenant_id = a.tenant_id AND k.id = a.key_id
                   AND (k.user_id = a.user_id OR 'chat:as-user' = ANY (k.scopes))
                   AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > a.opened_at)
    JOIN users u ON u.tenant_id = a.tenant_id AND u.id = a.user_id AND u.disabled_at IS NULL AND u.erased_at IS NULL
    JOIN users o ON o.tenant_id = k.tenant_id AND o.id = k.user_id AND o.disabled_at IS NULL AND o.erased_at IS NULL
     FOR SHARE OF e, k
)
INSERT INTO usage_requests
       (tenant_id, id, user_id, key_id, process_id, state, epoch, price_id, plan_version, period_id, day, opened_at,
        deadline_at, model_asked, held_prompt_tokens, held_output_tokens, held_nano_usd, held_web_searches,
        tags, tag_keys)
SELECT tenant_id, id, user_id, key_id, $19::uuid, 'open', epoch, price_id, plan_version, period_id, day, opened_at,
       deadline_at, model_asked, held_prompt_tokens, held_output_tokens, held_nano_usd, held_web_searches,
       tags, string_to_array(tag_keys, ',')
  FROM good
RETURNING id
