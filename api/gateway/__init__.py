"""`POST /chat`: the usage middleware, the SSE relay, and the client of Anthropic.

The relay has no knowledge of keys, quotas or money; the middleware settles each request in its `finally`. Anthropic
down: the request ends with an error and is settled by the usage measured so far.
"""
