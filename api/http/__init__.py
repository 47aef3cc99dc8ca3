"""The HTTP/1.1 server: client timeouts, connection limits, bodies, problems, request ids.

Every error is `application/problem+json`; every wait for a client has a deadline.
"""
