"""Who is who: tenants (the customers of the operator), their users, and the API keys that speak for them.

Owns the tables `tenants`, `users`, `api_keys`, `key_uses`, `web_sessions` and `audit_log`. A key is a secret that only
its holder has: here are its hash and a visible prefix. The directory turns a key into a `Principal`; when Postgres is
away it says `Unavailable` (503), never "wrong key".
"""
