-- Settled requests whose price the price list did not know whole (a model, a modifier, an iteration's type), by model.
-- $1: the tenant. $2, $3: the first day, and the first one after the last. $4, $5: the first id, and the first one after
-- the last.
SELECT model, count(*) AS requests, sum(cost_nano_usd)::bigint AS cost_nano_usd
  FROM usage_requests
 WHERE tenant_id = $1 AND id >= $4 AND id < $5 AND state = 'settled' AND day >= $2 AND day < $3 AND NOT model_known
 GROUP BY model
 ORDER BY model
