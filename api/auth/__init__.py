"""Who is calling: API keys, browser sessions, scopes, and the throttle of failed sign-ins.

Revoked keys open no metered request: Postgres checks the key when it inserts the row. Postgres down: 503.
"""
