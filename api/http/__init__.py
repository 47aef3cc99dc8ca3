"""HTTP/1.1 as Naka serves it: the server, client timeouts, connection limits, bodies, problems, request ids.

Every error leaves as `application/problem+json`; every wait for a client has a deadline.
"""
