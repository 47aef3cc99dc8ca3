"""Postgres: the connection URL, sessions, batched reads, keyset pages and roles.

Every statement has a deadline. A server that refuses, hangs or is read-only raises `Unavailable`.
"""
