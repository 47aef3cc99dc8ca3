-- Whether a tenant's schedule has a period that began before $1 and is counted at $2 (milliseconds since 1970).
SELECT EXISTS (
  SELECT
    FROM entitlements e, jsonb_array_elements(e.schedule -> 'periods') AS p
   WHERE (p ->> 'starts_ms')::bigint < $1 AND (p ->> 'ends_ms')::bigint > $2
)
