"""How much was used, and may this request start.

Owns the journal (`usage_requests`), the rollup (`usage_daily`), the meters, the prices, the limits and the epochs,
and the shadow of them in Redis. Invariants: no request reaches the provider without an open row; every open row is
settled or void in the end, once; concurrent grants never pass a limit; a meter is the sum of its settled rows.
Redis may be lost at any moment: Postgres is asked again. When Postgres is away nothing new is admitted.
"""
