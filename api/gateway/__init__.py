"""The metered routes, `POST /chat` and `POST /v1/messages`: middleware, relay, codecs, and the calls to Anthropic.

The relay has no knowledge of keys, quotas or money; the middleware settles each request in its `finally`; what differs
between routes is a codec. Anthropic down: the request ends with an error and is settled by the usage measured so far.
"""
