"""Tenants (the operator's customers), their users, API keys, browser sessions, and the audit log.

Only a key's hash and visible prefix are stored. Another tenant's id answers exactly like an unknown one. Postgres down:
the directory answers from its cache until the entry expires, then raises `Unavailable` (503), never "invalid key".
"""
