"""`POST /chat`: the usage middleware, the SSE relay, and the client of Anthropic.

The relay knows nothing of keys, quotas or money; the middleware settles in its `finally`. Anthropic down: the request
ends with an error event and is settled by what was measured.
"""
