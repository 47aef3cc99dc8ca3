"""`Idempotency-Key`: requests with the same key share one run, which is billed once, and all get its whole answer.

One process owns the run, by a lease in Redis. It appends the answer, encrypted, to a list there; every other request
with the key follows that list, in any process. A process that dies loses its lease, and the next retry runs anew; one
that was only paused finds that its lease is gone and stores nothing more. Redis away: a request with a key is refused
(503), because it could be billed twice; requests without a key do not notice.
"""
