-- Adds counts of refused requests. $1 tenants, $2 days, $3 codes, $4 numbers of requests.
INSERT INTO usage_refusals AS known (tenant_id, day, code, requests)
SELECT * FROM unnest($1::uuid[], $2::date[], $3::text[], $4::bigint[]) ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, day, code) DO UPDATE SET requests = known.requests + excluded.requests
