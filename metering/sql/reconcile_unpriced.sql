-- Settled requests whose model the price list did not know: tenant $1, days from $2 until $3, ids from $4 until $5.
SELECT model, count(*) AS requests, sum(cost_nano_usd)::bigint AS cost_nano_usd
  FROM usage_requests
 WHERE tenant_id = $1 AND id >= $4 AND id < $5 AND state = 'settled' AND day >= $2 AND day < $3 AND NOT model_known
 GROUP BY model
 ORDER BY model
